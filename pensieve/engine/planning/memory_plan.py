"""Plans memory: KV precision, KV budget and the promised context of a model on a device.

`plan` is the only function that turns facts of a model and a machine into a promise: the engine
passes what it measures of a loaded model (engine/model/memory.py), the front end what a config
states (models/catalog/memory_fit.py). One sequence of the promised context, alone, stays within the
limit. Plain arithmetic, no MLX.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pensieve.engine.planning.fused_attention import Backend, pair_bytes
from pensieve.engine.planning.kv_precision import FULL, KVPrecision

# The smallest step in which KV caches grow; from eight steps on, they grow by an eighth.
GROWTH_TOKENS = 256
GROWTH_SHARE = 8
MAX_GROWN_TOKENS = 1 << 24

GB = 10**9
# Of values in the KV cache that are not quantized.
FULL_BITS = 16
# Python, MLX and its kernels, the front end; measured together on Linux at 0.35 GB (2026-11-22).
PROCESS_BYTES = 600 * 10**6
# Activations of a prefill chunk: 2048 tokens of a 27B model's widest layer are 0.14 GB, and a few
# arrays exist at a time.
ACTIVATIONS_BYTES = 500 * 10**6
# The longest prefill chunk (engine/worker/build.py), which sliding windows hold in addition.
MAX_CHUNK_TOKENS = 2048
# Tokens that layers with a window hold next to it (engine/model/kv/window.py).
WINDOW_SPARE_TOKENS = 2 * GROWTH_TOKENS
# A prefill chunk at the end of the promised context has at least this many tokens; the same memory
# allows larger chunks earlier.
SCORES_CHUNK_TOKENS = 256
# Copies of untrimmable layers that a sequence keeps (engine/model/kv_state.py).
MAX_CHECKPOINTS = 3
# If full precision holds so much, halving the bytes gains an agent nothing: Claude Code begins with
# 4 000 to 12 000 tokens (docs/clients.md), and a task adds twice that and more before it compacts.
AMPLE_CONTEXT_TOKENS = 49_152


@dataclass(frozen=True, slots=True)
class KVBudget:
    """The memory of all KV caches together, of running requests and cached prefixes."""

    kv_bytes: int
    bytes_per_token: int
    sequence_bytes: int = 0  # of one sequence, whatever its length
    max_tokens: int | None = None  # of one sequence; None: as many as fit

    def sequence(self, tokens: int) -> int:
        """Return the bytes of one sequence's caches, unused capacity included."""
        if not tokens:
            return 0
        grown = grown_tokens(tokens, self.context_tokens)
        return self.sequence_bytes + grown * self.bytes_per_token

    @property
    def context_tokens(self) -> int:
        """The longest sequence that fits when it runs alone."""
        free = self.kv_bytes - self.sequence_bytes
        fitting = max(0, free // max(1, self.bytes_per_token) // GROWTH_TOKENS * GROWTH_TOKENS)
        return fitting if self.max_tokens is None else min(fitting, self.max_tokens)


def grown_tokens(tokens: int, max_tokens: int) -> int:
    """Return the capacity of arrays that hold `tokens` tokens: one of a few fixed sizes.

    It does not depend on earlier lengths, and does not exceed `max_tokens`, the sequence's limit.
    """
    size = _SIZES[min(bisect_left(_SIZES, tokens), len(_SIZES) - 1)]
    return max(_whole_steps(tokens), min(size, _whole_steps(max_tokens)))


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
    """What a plan needs of a model."""

    weights_bytes: int  # in memory
    context_tokens: int  # that the model was built for
    token_values: int  # keys and values of one token, in all layers that keep every token
    layer_values: int  # keys and values of one token in one of these layers
    query_heads: int
    head_dim: int
    state_bytes: int = 0  # of one sequence, whatever its length: recurrent states, full windows
    window_token_bytes: int = 0  # keys and values of one token in all layers with a window
    is_quantizable: bool = True  # its KV caches are ours, and their attention is fast quantized


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """The device that a model runs on."""

    limit_bytes: int  # for weights, KV caches and everything else together
    backend: Backend
    computed_bytes: int = 2  # of one value that is not quantized

    def part_of(self, engines: int) -> "DeviceLimits":
        """Return the limits of each of several engines that share the device."""
        return replace(self, limit_bytes=self.limit_bytes // engines)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The promise for one model on one device; the parts in bytes add up to `total_bytes`."""

    limit_bytes: int
    weights_bytes: int
    precision: KVPrecision
    reason: str  # why this precision
    budget: KVBudget
    windows_bytes: int  # one prefill chunk in layers with a window
    scores_bytes: int  # attention scores of one prefill chunk
    pair_bytes: int  # attention scores of one query token and one key
    copies_bytes: int  # one layer again while it grows, and once more if it is dequantized

    @property
    def context_tokens(self) -> int:
        """The longest prompt and answer together that always fit when they run alone."""
        return self.budget.context_tokens

    @property
    def total_bytes(self) -> int:
        """Everything, at the end of the promised context."""
        fixed = self.weights_bytes + PROCESS_BYTES + ACTIVATIONS_BYTES
        caches = self.budget.sequence(self.context_tokens)
        return fixed + caches + self.windows_bytes + self.scores_bytes + self.copies_bytes


def plan(facts: ModelFacts, device: DeviceLimits, kv_bits: int | None = None) -> MemoryPlan:
    """Plan with `kv_bits` if given, else with the most precise KV cache that holds enough context.

    16 bits are full precision.
    """
    at_full = plan_at(facts, device, FULL)
    by_bits = {precision.bits or FULL_BITS: precision for precision in choices(facts)}
    if kv_bits == FULL_BITS:
        return replace(at_full, reason="full precision, as asked for")
    if obstacle := _obstacle(facts):
        return replace(at_full, reason=f"full precision: {obstacle}")
    if kv_bits is not None:
        return plan_at(facts, device, by_bits[kv_bits], f"{kv_bits}-bit, as asked for")
    if device.backend == "cpu":
        return replace(at_full, reason="full precision, the fastest on a processor")
    context = f"{at_full.context_tokens:,} tokens"
    if at_full.context_tokens >= min(AMPLE_CONTEXT_TOKENS, facts.context_tokens):
        return replace(at_full, reason=f"full precision holds {context}")
    return plan_at(facts, device, by_bits[8], f"8-bit: full precision would hold {context} only")


def plan_at(
    facts: ModelFacts, device: DeviceLimits, precision: KVPrecision, reason: str = ""
) -> MemoryPlan:
    """Plan with KV caches in this precision."""
    chosen = replace(precision, can_multiply=precision.bits is not None and _is_metal(device))
    pair = pair_bytes(device.backend, facts.head_dim, facts.query_heads)
    token = int(facts.token_values * chosen.bytes_per_value(device.computed_bytes))
    copied = _copied_bytes(facts, device, chosen)
    sequence_bytes = facts.state_bytes * (1 + MAX_CHECKPOINTS)
    sequence_bytes += facts.window_token_bytes * WINDOW_SPARE_TOKENS
    windows_bytes = facts.window_token_bytes * MAX_CHUNK_TOKENS
    fixed = facts.weights_bytes + PROCESS_BYTES + ACTIVATIONS_BYTES + windows_bytes
    free = device.limit_bytes - fixed
    # A token costs its keys and values and the temporary arrays that grow with the context.
    cost = token + copied + SCORES_CHUNK_TOKENS * pair
    fitting = max(0, free - sequence_bytes) // max(1, cost) // GROWTH_TOKENS * GROWTH_TOKENS
    tokens = min(fitting, _whole_steps(facts.context_tokens))
    scores_bytes, copies_bytes = tokens * SCORES_CHUNK_TOKENS * pair, tokens * copied
    kv_bytes = max(0, free - scores_bytes - copies_bytes)
    max_tokens = min(tokens, facts.context_tokens)
    budget = KVBudget(kv_bytes, token, sequence_bytes, max_tokens)
    return MemoryPlan(
        device.limit_bytes,
        facts.weights_bytes,
        chosen,
        reason,
        budget,
        windows_bytes,
        scores_bytes,
        pair,
        copies_bytes,
    )


# Return the least of a named value over the ranks that share a model.
Least = Callable[[str, int], int]


def agreed(
    plan_for: Callable[[int | None], MemoryPlan], kv_bits: int | None, least: Least
) -> MemoryPlan:
    """Return a plan that every rank of a model can keep: that of the rank with the least room.

    `plan_for` plans with KV caches of so many bits. A worker that shares no model plans once.
    """
    own = plan_for(kv_bits)
    bits = own.precision.bits or FULL_BITS
    if (agreed_bits := least("kv bits", bits)) != bits:
        reason = f"{agreed_bits}-bit, for the machine with the least memory"
        own = replace(plan_for(agreed_bits), reason=reason)
    budget = replace(
        own.budget,
        kv_bytes=least("kv bytes", own.budget.kv_bytes),
        max_tokens=least("context", own.context_tokens),
    )
    return replace(own, budget=budget, scores_bytes=least("scores bytes", own.scores_bytes))


def needed_bytes(facts: ModelFacts, device: DeviceLimits, precision: KVPrecision) -> int:
    """Return the bytes that the model needs in all for a useful context."""
    tokens = min(AMPLE_CONTEXT_TOKENS, facts.context_tokens)
    unlimited = replace(device, limit_bytes=1 << 62)
    return plan_at(replace(facts, context_tokens=tokens), unlimited, precision).total_bytes


def _copied_bytes(facts: ModelFacts, device: DeviceLimits, precision: KVPrecision) -> int:
    """Return the temporary bytes of one token in a layer.

    A layer is copied when it grows, and dequantized when it is read.
    """
    grown = int(facts.layer_values * precision.bytes_per_value(device.computed_bytes))
    return grown + (facts.layer_values * device.computed_bytes if precision.bits else 0)


def _is_metal(device: DeviceLimits) -> bool:
    return device.backend in {"metal", "metal_nax"}


def _obstacle(facts: ModelFacts) -> str | None:
    """Return why this model's caches cannot be quantized; None if they can."""
    if not facts.is_quantizable:
        return "this model's caches cannot be quantized"
    if group_size_for(facts.head_dim) is None:
        return f"heads of {facts.head_dim} values cannot be quantized"
    return None


def choices(facts: ModelFacts) -> tuple[KVPrecision, ...]:
    """Return the supported precisions of this model's KV caches, the most precise first."""
    return (FULL,) if _obstacle(facts) else precisions(facts.head_dim)


def group_size_for(head_dim: int) -> int | None:
    """Return MLX's largest quantization group that divides a head; None if none does.

    Phi-3's heads of 96 allow only 32, Phi-2's of 80 none.
    """
    return next((group for group in (64, 32) if head_dim and head_dim % group == 0), None)


def precisions(head_dim: int) -> tuple[KVPrecision, ...]:
    """Return the supported precisions of heads of this size, the most precise first."""
    group_size = group_size_for(head_dim)
    if group_size is None:
        return (FULL,)
    return (FULL, KVPrecision(8, group_size), KVPrecision(4, group_size, is_rotated=True))
