"""How much memory and context a model gets on a device. Pure arithmetic, no MLX."""
