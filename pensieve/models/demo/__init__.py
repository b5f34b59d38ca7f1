"""The embedded demo model: from a GGUF file in a Python wheel to an mlx-lm folder."""
