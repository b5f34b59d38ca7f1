"""The precision of stored keys and values, and its cost. Plain values, no MLX."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KVPrecision:
    """How keys and values are stored."""

    bits: int | None = None  # None: as computed; 8 or 4: in affine groups
    group_size: int = 32  # values per group
    # A Hadamard rotation of each head spreads outliers before quantizing; at 4 bits it more than
    # halves the divergence from full precision.
    is_rotated: bool = False
    can_multiply: bool = False  # the device has the quantized product

    def bytes_per_value(self, computed_bytes: int) -> float:
        """Return the bytes of one stored value.

        A group has a scale and a bias in the computed precision.
        """
        if self.bits is None:
            return computed_bytes
        return self.bits / 8 + 2 * computed_bytes / self.group_size


FULL = KVPrecision()
