"""What a sequence costs in memory and how much all of them may hold. Plain arithmetic, no MLX."""

from dataclasses import dataclass

# KV caches grow in steps of so many tokens (kv.py).
GROWTH_TOKENS = 256


@dataclass(frozen=True, slots=True)
class KVBudget:
    """kv_bytes: for all KV caches together, at work and at rest. A sequence costs `sequence_bytes` and its tokens."""

    kv_bytes: int
    bytes_per_token: int
    sequence_bytes: int = 0

    def sequence(self, tokens: int) -> int:
        """Bytes of one sequence's caches with so many tokens."""
        grown = -(-tokens // GROWTH_TOKENS) * GROWTH_TOKENS
        return self.sequence_bytes + grown * self.bytes_per_token

    @property
    def context_tokens(self) -> int:
        """The longest sequence that fits when it is alone."""
        room = self.kv_bytes - self.sequence_bytes
        return max(0, room // max(1, self.bytes_per_token) // GROWTH_TOKENS * GROWTH_TOKENS)
