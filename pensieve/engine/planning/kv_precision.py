"""How precisely keys and values are stored, and what that costs. Plain values, no MLX."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KVPrecision:
    """bits None: as computed; 8 or 4: affine groups of `group_size` values.

    is_rotated: a Hadamard rotation of each head spreads outliers before quantizing; at 4 bits it more than halves the
    divergence from full precision (engine.md §3). can_multiply: the device has the quantized product.
    """

    bits: int | None = None
    group_size: int = 32
    is_rotated: bool = False
    can_multiply: bool = False

    def bytes_per_value(self, computed_bytes: int) -> float:
        """Bytes of one stored value: a group has a scale and a bias in the precision that it was computed in."""
        if self.bits is None:
            return computed_bytes
        return self.bits / 8 + 2 * computed_bytes / self.group_size


FULL = KVPrecision()
