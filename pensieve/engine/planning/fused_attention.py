"""Which heads MLX's fused attention supports on each device; others keep their scores in memory.

Used by memory_plan.py. No MLX. Metal's rows are what `has_fused_kernel` and `use_fallback` state in
MLX's source (mlx/backend/metal/scaled_dot_product_attention.cpp), with the rule for 256 as found in
the code of the macOS wheels of 0.32.4 (2026-11-30). On CUDA, cuDNN's kernels should support more
heads than are listed; with 96, scores were seen in memory all the same (H200, 0.32.4), so only what
was seen fused counts. MLX can be made to fuse 192 and 256 on M1 to M4 (`force_fused`), which is
slower and not used here, since a plan reserves the scores of 256 tokens.
tests/engine/planning/test_fused_attention.py fails when another MLX is installed: read its source
again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# M1 to M4; M5 and later with macOS 26.2 or later, whose kernels MLX calls NAX; NVIDIA; CPU.
Backend = Literal["metal", "metal_nax", "cuda", "cpu"]

READ_FROM_MLX = "0.32.4"
# MLX's prefill kernels take more query tokens than this, its decode kernels up to this many.
MAX_DECODE_TOKENS = 8
_ANY = MAX_DECODE_TOKENS + 1


@dataclass(frozen=True, slots=True)
class FusedHeads:
    """The heads that a device's kernels support.

    Kernels that need as many query tokens as keys are not counted: only the first chunk of a prompt
    has that.
    """

    # By head dim: the query tokens from which a prefill chunk is fused.
    prefill: Mapping[int, int]
    decode: frozenset[int]
    # Bytes of one score if attention is not fused.
    score_bytes: int


# Bytes per score: in MLX's composed attention the mask and the softmax work in place, so that one
# array of the computed precision is allocated: measured with `mx.get_peak_memory` at 2.1 bytes per
# score in bfloat16 and 4.2 in float32 (MLX 0.32.4, x86-64, 2026-11-30), and reported as 2.0 on
# Metal (jundot/omlx#2025, ml-explore/mlx#4505). CUDA's number is measured: 18 GB for 2048 tokens
# after 14 000 with 32 heads (H200, 2026-11-22).
FUSED: Mapping[Backend, FusedHeads] = {
    "metal": FusedHeads(
        {64: _ANY, 72: _ANY, 80: _ANY, 96: _ANY, 128: _ANY}, frozenset({64, 96, 128, 256}), 2
    ),
    "metal_nax": FusedHeads(
        {64: _ANY, 72: _ANY, 80: _ANY, 96: _ANY, 128: _ANY, 256: 1024},
        frozenset({64, 96, 128, 256}),
        2,
    ),
    "cuda": FusedHeads({64: _ANY, 128: _ANY}, frozenset({64, 96, 128}), 18),
    "cpu": FusedHeads({}, frozenset(), 4),
}


def is_fused(backend: Backend, head_dim: int, tokens: int) -> bool:
    """Whether attention of this many query tokens keeps its scores out of memory."""
    heads = FUSED[backend]
    if tokens <= MAX_DECODE_TOKENS:
        return head_dim in heads.decode
    return head_dim in heads.prefill and tokens >= heads.prefill[head_dim]


def pair_bytes(backend: Backend, head_dim: int, query_heads: int) -> int:
    """Return the score bytes of one query token and one key in a prefill chunk; 0 if always fused.

    A prompt's last chunk and one that ends at a checkpoint may be short: heads that are fused in
    long chunks only count as not fused. One byte is the causal mask's.
    """
    if not query_heads or is_fused(backend, head_dim, _ANY):
        return 0
    return query_heads * FUSED[backend].score_bytes + 1
