"""The engine: tokens in, token events out. It knows no text, no API format and no HTTP."""
