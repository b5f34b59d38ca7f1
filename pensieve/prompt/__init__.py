"""Turns a request into a prompt and a `Generation`."""
