"""Tokenizer, detokenizer and chat template of a model. Loads no MLX."""
