"""KV caches of the engine's own kinds, and how a batch drops refused drafts from caches."""
