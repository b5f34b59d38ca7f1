"""What memory there is for KV caches, what a sequence costs, and what follows for the context.
Plain arithmetic, no MLX.

`plan` is the one place where a model's figures and a machine's become a promise: the engine feeds
it what it measures of a loaded model (engine/model/memory.py), the front end what a config says (models/catalog/memory_fit.py).
At the promised context, alone, all parts of a plan together stay within its limit.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pensieve.engine.planning.fused_attention import Backend, pair_bytes
from pensieve.engine.planning.kv_precision import FULL, KVPrecision

# The smallest step in which KV caches grow; beyond eight of them, they grow by an eighth.
GROWTH_TOKENS = 256
GROWTH_SHARE = 8
MAX_GROWN_TOKENS = 1 << 24

GB = 10**9
# Python, MLX and its kernels, the front end; measured together on Linux at 0.35 GB (2026-11-22).
PROCESS_BYTES = 600 * 10**6
# A prefill chunk's activations: 2048 tokens of a 27B model's widest layer are 0.14 GB, and a few
# arrays are alive at a time.
ACTIVATIONS_BYTES = 500 * 10**6
# The longest prefill chunk (engine/worker/build.py), which sliding windows hold beside themselves.
MAX_CHUNK_TOKENS = 2048
# At the end of the promised context a prefill chunk has at least so many tokens; the same room
# holds larger ones before.
SCORES_CHUNK_TOKENS = 256
# Copies of what cannot be cut back that a sequence keeps besides its own (engine/model/kv_state.py).
MAX_CHECKPOINTS = 3
# Where full precision holds so much, halving the bytes gains an agent nothing: Claude Code begins
# with 12 000 to 14 000 tokens (2.1.330, 2026-11), and a task adds twice that and more before it
# compacts.
AMPLE_CONTEXT_TOKENS = 49_152


@dataclass(frozen=True, slots=True)
class KVBudget:
    """kv_bytes: for all KV caches together, at work and at rest. A sequence costs `sequence_bytes`
    and its tokens.

    most_tokens: the longest that a sequence may become; None: as long as fits.
    """

    kv_bytes: int
    bytes_per_token: int
    sequence_bytes: int = 0
    most_tokens: int | None = None

    def sequence(self, tokens: int) -> int:
        """Bytes of one sequence's caches with so many tokens, the room for growth included."""
        if not tokens:
            return 0
        grown = grown_tokens(tokens, self.context_tokens)
        return self.sequence_bytes + grown * self.bytes_per_token

    @property
    def context_tokens(self) -> int:
        """The longest sequence that fits when it is alone."""
        room = self.kv_bytes - self.sequence_bytes
        fitting = max(0, room // max(1, self.bytes_per_token) // GROWTH_TOKENS * GROWTH_TOKENS)
        return fitting if self.most_tokens is None else min(fitting, self.most_tokens)


def grown_tokens(tokens: int, most_tokens: int) -> int:
    """The tokens that arrays have room for when they hold `tokens`, whatever they held before: one
    of a few fixed sizes.

    most_tokens: beyond it no sequence grows, so that no room is made there.
    """
    size = _SIZES[min(bisect_left(_SIZES, tokens), len(_SIZES) - 1)]
    return max(_whole_steps(tokens), min(size, _whole_steps(most_tokens)))


def _whole_steps(tokens: int) -> int:
    return -(-tokens // GROWTH_TOKENS) * GROWTH_TOKENS


def _sizes() -> Iterator[int]:
    size = 0
    while size < MAX_GROWN_TOKENS:
        yield size
        size += max(GROWTH_TOKENS, _whole_steps(size // GROWTH_SHARE))
    yield size


_SIZES = tuple(_sizes())


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a plan needs to know of a model."""

    weights_bytes: int  # in memory
    context_tokens: int  # that the model was built for
    token_values: int  # keys and values of one token, in all layers that keep every token
    layer_values: int  # keys and values of one token in one of these layers
    query_heads: int
    head_dim: int
    state_bytes: int = 0  # of one sequence, whatever its length: recurrent states, full windows
    window_token_bytes: int = 0  # keys and values of one token in all layers with a window
    is_quantizable: bool = True  # its KV caches are ours


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """Where a model is to run. limit_bytes: for weights, KV caches and everything else together."""

    limit_bytes: int
    backend: Backend
    computed_bytes: int = 2  # of one value that is not quantized


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The promise for one model in one place. All fields in bytes stand beside each other;
    `total_bytes` is their sum.
    """

    limit_bytes: int
    weights_bytes: int
    precision: KVPrecision
    reason: str  # why this precision
    budget: KVBudget
    windows_bytes: int  # one prefill chunk in layers with a window
    scores_bytes: int  # attention scores of one prefill chunk
    pair_bytes: int  # of which: one token with one that it looks at
    copies_bytes: int  # one layer twice while it grows, and once more where it is dequantized

    @property
    def context_tokens(self) -> int:
        """The longest prompt and answer together that always fit when they are alone."""
        return self.budget.context_tokens

    @property
    def total_bytes(self) -> int:
        """Everything, while one sequence ends the promised context."""
        fixed = self.weights_bytes + PROCESS_BYTES + ACTIVATIONS_BYTES
        caches = self.budget.sequence(self.context_tokens)
        return fixed + caches + self.windows_bytes + self.scores_bytes + self.copies_bytes


def plan(facts: ModelFacts, place: DeviceLimits, kv_bits: int | None = None) -> MemoryPlan:
    """What was asked for; else the most precise KV cache that holds enough context. kv_bits: 16 is
    full precision.
    """
    at_full = plan_at(facts, place, FULL)
    by_bits = {one.bits or 16: one for one in choices(facts)}
    if kv_bits == 16:
        return replace(at_full, reason="full precision, as asked for")
    if obstacle := _obstacle(facts):
        return replace(at_full, reason=f"full precision: {obstacle}")
    if kv_bits is not None:
        return plan_at(facts, place, by_bits[kv_bits], f"{kv_bits}-bit, as asked for")
    if place.backend == "cpu":
        return replace(at_full, reason="full precision, the fastest on a processor")
    held = f"{at_full.context_tokens:,} tokens"
    if at_full.context_tokens >= min(AMPLE_CONTEXT_TOKENS, facts.context_tokens):
        return replace(at_full, reason=f"full precision holds {held}")
    return plan_at(facts, place, by_bits[8], f"8-bit: full precision would hold {held} only")


def plan_at(
    facts: ModelFacts, place: DeviceLimits, precision: KVPrecision, reason: str = ""
) -> MemoryPlan:
    """The plan with KV caches in this precision."""
    chosen = replace(precision, can_multiply=precision.bits is not None and _is_metal(place))
    pair = pair_bytes(place.backend, facts.head_dim, facts.query_heads)
    token = int(facts.token_values * chosen.bytes_per_value(place.computed_bytes))
    copied = _copied_bytes(facts, place, chosen)
    sequence_bytes = facts.state_bytes * (1 + MAX_CHECKPOINTS)
    windows_bytes = facts.window_token_bytes * MAX_CHUNK_TOKENS
    fixed = facts.weights_bytes + PROCESS_BYTES + ACTIVATIONS_BYTES + windows_bytes
    room = place.limit_bytes - fixed
    # Tokens cost their keys and values, and what is made of all of them for a while.
    cost = token + copied + SCORES_CHUNK_TOKENS * pair
    fitting = max(0, room - sequence_bytes) // max(1, cost) // GROWTH_TOKENS * GROWTH_TOKENS
    tokens = min(fitting, _whole_steps(facts.context_tokens))
    scores_bytes, copies_bytes = tokens * SCORES_CHUNK_TOKENS * pair, tokens * copied
    kv_bytes = max(0, room - scores_bytes - copies_bytes)
    most_tokens = min(tokens, facts.context_tokens)
    budget = KVBudget(kv_bytes, token, sequence_bytes, most_tokens)
    return MemoryPlan(
        place.limit_bytes,
        facts.weights_bytes,
        chosen,
        reason,
        budget,
        windows_bytes,
        scores_bytes,
        pair,
        copies_bytes,
    )


def needed_bytes(facts: ModelFacts, place: DeviceLimits, precision: KVPrecision) -> int:
    """What the model takes in all with a context to work in."""
    tokens = min(AMPLE_CONTEXT_TOKENS, facts.context_tokens)
    roomy = replace(place, limit_bytes=1 << 62)
    return plan_at(replace(facts, context_tokens=tokens), roomy, precision).total_bytes


def _copied_bytes(facts: ModelFacts, place: DeviceLimits, precision: KVPrecision) -> int:
    """What one token of a layer costs beside its keys and values: they are copied when the layer
    grows, dequantized when it is read.
    """
    grown = int(facts.layer_values * precision.bytes_per_value(place.computed_bytes))
    return grown + (facts.layer_values * place.computed_bytes if precision.bits else 0)


def _is_metal(place: DeviceLimits) -> bool:
    return place.backend in {"metal", "metal_nax"}


def _obstacle(facts: ModelFacts) -> str | None:
    """Why this model's caches cannot be quantized, if they cannot."""
    if not facts.is_quantizable:
        return "this model keeps caches of its own kind"
    if group_size_for(facts.head_dim) is None:
        return f"heads of {facts.head_dim} values cannot be quantized"
    return None


def choices(facts: ModelFacts) -> tuple[KVPrecision, ...]:
    """How precisely this model's KV caches can be kept, from the most precise to the smallest."""
    return (FULL,) if _obstacle(facts) else precisions(facts.head_dim)


def group_size_for(head_dim: int) -> int | None:
    """The largest group of MLX's quantization that fits a head: Phi-3's 96 takes 32 only, Phi-2's 80 takes none."""
    return next((group for group in (64, 32) if head_dim and head_dim % group == 0), None)


def precisions(head_dim: int) -> tuple[KVPrecision, ...]:
    """What a head can be kept in, from the most precise to the smallest."""
    group_size = group_size_for(head_dim)
    if group_size is None:
        return (FULL,)
    return (FULL, KVPrecision(8, group_size), KVPrecision(4, group_size, is_rotated=True))
