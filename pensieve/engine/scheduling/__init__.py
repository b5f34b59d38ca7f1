"""Which request runs next and which prefixes stay cached. Pure: no MLX, no clock, no file."""
