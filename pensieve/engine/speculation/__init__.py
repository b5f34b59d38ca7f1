"""Speculative decoding without MLX: which tokens to draft, how many, and which to keep."""
