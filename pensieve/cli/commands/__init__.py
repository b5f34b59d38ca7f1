"""One module per command, grouped by subject."""
