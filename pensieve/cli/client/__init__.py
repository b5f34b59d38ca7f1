"""The HTTP client of the commands: find a server, check that it is ours, talk to it."""
