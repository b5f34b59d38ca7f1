"""Chat templates: what a template can do, and messages rendered through it."""
