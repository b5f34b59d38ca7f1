"""A request's turns, blocks and tools, before any template is applied."""
