"""What memory there is for KV caches, what a sequence costs, and what follows for the context. Plain arithmetic, no MLX."""

from dataclasses import dataclass

from pensieve.engine.precision import FULL, KVPrecision

# KV caches grow in steps of so many tokens (kv.py).
GROWTH_TOKENS = 256

GB = 10**9
# What a 16 GB Mac can give and still be used for something else.
SMALL_MAC_BYTES = 16 * 2**30
SMALL_MAC_LIMIT_BYTES = 12 * GB
# Above this, Metal lets a process have three quarters of the memory instead of two thirds.
LARGE_MAC_BYTES = 36 * 2**30
# Python, MLX and its kernels, the front end; measured together on Linux at 0.35 GB (2026-11-22).
PROCESS_BYTES = 600 * 10**6
# A prefill chunk's activations and one layer's dequantized keys and values.
TRANSIENT_BYTES = 800 * 10**6
# Where attention is not fused, its scores are in memory beside them: this share of all.
SCORES_SHARE = 8
# Of one score, with what is made of it on the way: 18 GB for 2048 tokens behind 14 000, 32 heads (H200, MLX 0.32.4, 2026-11-22).
SCORE_BYTES = 18
# Where full precision holds so much, halving the bytes gains nothing that is needed.
ENOUGH_CONTEXT_TOKENS = 32_768


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


def kv_room(limit_bytes: int, weights_bytes: int, scores_bytes: int = 0) -> int:
    """What is left for KV caches of all that pensieve may use."""
    taken = weights_bytes + PROCESS_BYTES + TRANSIENT_BYTES + scores_bytes
    return max(0, limit_bytes - taken)


def mac_working_set(memory_bytes: int) -> int:
    """What Metal recommends a process to use at most on a Mac with so much memory (engine.md §3)."""
    if memory_bytes > LARGE_MAC_BYTES:
        return memory_bytes * 3 // 4
    return memory_bytes * 2 // 3


def limit_bytes(memory_bytes: int, working_set_bytes: int) -> int:
    """What pensieve takes for itself in all of a GPU's working set."""
    if memory_bytes <= SMALL_MAC_BYTES:
        return min(working_set_bytes, SMALL_MAC_LIMIT_BYTES)
    return working_set_bytes * 9 // 10


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What decides how many bytes a token costs: layers that keep everything, KV heads, values a head."""

    layers: int
    kv_heads: int
    head_dim: int

    def bytes_per_token(self, precision: KVPrecision, computed_bytes: int = 2) -> int:
        """Keys and values of one token in all layers."""
        values = 2 * self.layers * self.kv_heads * self.head_dim
        return int(values * precision.bytes_per_value(computed_bytes))


def group_size_for(head_dim: int) -> int | None:
    """The largest group of MLX's quantization that fits a head: Phi-3's 96 takes 32 only, Phi-2's 80 takes none."""
    return next((group for group in (64, 32) if head_dim % group == 0), None)


def precisions(head_dim: int) -> tuple[KVPrecision, ...]:
    """What a head can be kept in, from the most precise to the smallest."""
    group_size = group_size_for(head_dim)
    if group_size is None:
        return (FULL,)
    return (FULL, KVPrecision(8, group_size), KVPrecision(4, group_size, is_rotated=True))
