"""What the server does now and did lately: numbers about requests, and no content of theirs."""
