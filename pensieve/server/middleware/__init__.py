"""Middleware around every request: context and logging, access checks, CORS, base URLs."""
