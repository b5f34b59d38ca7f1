"""Anthropic's wire as values. No I/O, no framework, no tokens."""
