"""Grammars in the worker: compile in the background, mask tokens. The only users of llguidance."""
