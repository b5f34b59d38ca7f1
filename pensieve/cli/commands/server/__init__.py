"""Commands about the server: start, stop, watch, diagnose."""
