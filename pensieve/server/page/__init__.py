"""The page at `/`: what the server does now, for a person's browser."""
