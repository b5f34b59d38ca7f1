"""Which request runs next and which prefixes stay cached. Pure: no MLX, clock or file."""
