"""The command line: cyclopts, one file per command; it talks to the server over httpx."""
