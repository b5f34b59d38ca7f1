"""The requests and responses of Anthropic's API as values. No I/O, no framework, no tokens."""
