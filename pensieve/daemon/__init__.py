"""The server's life seen from outside: its lock, record and port, starting and stopping it.

Knows processes, files and sockets of this machine; no model, no framework, and of the server only
`GET /health`.
"""
