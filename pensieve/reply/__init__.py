"""Turns the engine's events into the message events of the API."""
