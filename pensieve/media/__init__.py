"""Decodes files that clients send and that may be hostile, each in a process of its own."""
