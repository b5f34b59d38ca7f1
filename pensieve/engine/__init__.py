"""The engine: tokens in, token events out. No text, no JSON of the API, no HTTP."""
