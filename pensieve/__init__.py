"""pensieve: a local model on your own Mac that speaks the Anthropic API."""

__version__ = "0.1.0"
