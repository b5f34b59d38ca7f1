"""The server's life as seen from outside: its lock, its record, its port, starting and stopping it.

Knows processes, files and sockets of this machine; no model, no framework, and of the server only `GET /health`.
"""
