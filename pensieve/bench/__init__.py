"""`pensieve bench`: measures a served model over HTTP, as an agent would feel it."""
