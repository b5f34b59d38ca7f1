"""Blocks of KV cache as files: format, store, daily write quota. No MLX."""
