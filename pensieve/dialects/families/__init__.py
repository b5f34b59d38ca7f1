"""One module per model family: the form of its tool calls and thinking."""
