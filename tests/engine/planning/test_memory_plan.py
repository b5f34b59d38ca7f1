"""Tests memory plans: growth of caches, cost of a sequence, sums of a plan."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import (
    ACTIVATIONS_BYTES,
    GB,
    MAX_CHECKPOINTS,
    PROCESS_BYTES,
    SCORES_CHUNK_TOKENS,
    DeviceLimits,
    KVBudget,
    MemoryPlan,
    ModelFacts,
    agreed,
    grown_tokens,
    needed_bytes,
    plan,
    plan_at,
)
from pensieve.engine.scheduling.prefill_chunks import AttentionScoresBudget, ChunkSizer

QWEN_9B = ModelFacts(
    weights_bytes=5_038_040_064,
    context_tokens=262_144,
    token_values=8 * 2 * 4 * 256,
    layer_values=2 * 4 * 256,
    query_heads=16,
    head_dim=256,
    state_bytes=51_511_296,
)
MAC_16 = DeviceLimits(10_700_000_000, "metal")


@given(st.integers(1, 300_000), st.integers(1, 300_000))
def test_capacity_grows_by_an_eighth_up_to_the_context(tokens: int, context: int) -> None:
    grown = grown_tokens(tokens, context)
    assert grown % 256 == 0
    assert tokens <= grown <= max(tokens + 255, -(-context // 256) * 256)
    assert grown <= tokens * 9 / 8 + 512


def test_growing_sequence_is_copied_fewer_than_60_times() -> None:
    sizes = {grown_tokens(tokens, 262_144) for tokens in range(1, 262_145, 64)}
    assert len(sizes) < 60


@given(st.integers(0, 10**9), st.integers(1, 10**5), st.integers(0, 10**8))
def test_context_tokens_is_the_longest_sequence_that_fits(
    kv_bytes: int, token: int, state: int
) -> None:
    budget = KVBudget(kv_bytes, token, state)
    if longest := budget.context_tokens:
        assert budget.sequence(longest) <= kv_bytes
    assert state + (budget.context_tokens + 256) * token > kv_bytes
    assert budget.sequence(0) == 0


def test_plan_matches_hand_calculation() -> None:
    """Qwen3.5-9B on 16 GB, head dim 256.

    KV, scores of 16 heads for 256 tokens, one layer while it grows, a state and its copies.
    """
    planned = plan(QWEN_9B, MAC_16)
    assert (planned.context_tokens, planned.precision.bits) == (96_000, None)
    fixed = 5_038_040_064 + 600_000_000 + 500_000_000 + 4 * 51_511_296
    assert planned.total_bytes == fixed + 96_000 * (32_768 + 256 * 33 + 4096)
    assert planned.total_bytes <= MAC_16.limit_bytes < planned.total_bytes + 256 * 45_312


def test_quantized_cache_costs_scales_and_one_dequantized_layer() -> None:
    planned = plan(QWEN_9B, MAC_16, 8)
    token = 16_384 * (1 + 4 / 64)
    assert planned.budget.bytes_per_token == token
    assert planned.copies_bytes == planned.context_tokens * (2048 * (1 + 4 / 64) + 2048 * 2)
    assert planned.precision == KVPrecision(8, 64, can_multiply=True)
    assert plan(QWEN_9B, replace(MAC_16, backend="cuda"), 8).precision == KVPrecision(8, 64)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_every_chunk_of_a_prompt_stays_within_the_scores_budget(bits: int) -> None:
    planned = plan(QWEN_9B, MAC_16, bits)
    sizer = ChunkSizer(2048, AttentionScoresBudget(planned.scores_bytes, planned.pair_bytes))
    done = 0
    while done < planned.context_tokens:
        max_chunk = sizer.scores.max_tokens(done)
        assert max_chunk is not None
        assert max_chunk >= SCORES_CHUNK_TOKENS or done + max_chunk >= planned.context_tokens
        chunk = min(max_chunk, 2048, planned.context_tokens - done)
        assert chunk * (done + chunk) * planned.pair_bytes <= planned.scores_bytes
        done += chunk


def test_eight_bits_are_chosen_if_full_precision_holds_too_little_context() -> None:
    def device_for(tokens: int) -> DeviceLimits:
        fixed = QWEN_9B.weights_bytes + PROCESS_BYTES + ACTIVATIONS_BYTES
        states = (1 + MAX_CHECKPOINTS) * QWEN_9B.state_bytes
        return DeviceLimits(fixed + states + tokens * (32_768 + 256 * 33 + 4096), "metal")

    enough = plan(QWEN_9B, device_for(49_152))
    assert (enough.precision, enough.reason) == (FULL, "full precision holds 49,152 tokens")
    short = plan(QWEN_9B, device_for(49_151))
    assert short.precision.bits == 8
    assert short.reason == "8-bit: full precision would hold 48,896 tokens only"
    # The model's whole context is always enough.
    small = plan(replace(QWEN_9B, context_tokens=8192), device_for(8192))
    assert small.precision == FULL


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_quantizable": False}, "full precision: this model's caches cannot be quantized"),
        ({"head_dim": 80}, "full precision: heads of 80 values cannot be quantized"),
    ],
)
def test_unquantizable_model_keeps_full_precision_despite_request(
    changes: dict[str, int], reason: str
) -> None:
    planned = plan(replace(QWEN_9B, **changes), MAC_16, 8)
    assert (planned.precision, planned.reason) == (FULL, reason)


def test_cpu_keeps_full_precision_and_counts_its_scores() -> None:
    planned = plan(QWEN_9B, DeviceLimits(30 * GB, "cpu", computed_bytes=4))
    assert planned.reason == "full precision, the fastest on a processor"
    assert planned.scores_bytes == planned.context_tokens * 256 * (16 * 4 + 1)


def test_model_that_does_not_fit_gets_no_context() -> None:
    planned = plan(QWEN_9B, DeviceLimits(5 * GB, "metal"))
    assert (planned.context_tokens, planned.scores_bytes, planned.budget.kv_bytes) == (0, 0, 0)


def test_needed_bytes_equals_the_plan_at_that_context() -> None:
    needed = needed_bytes(QWEN_9B, MAC_16, FULL)
    at_that = plan_at(QWEN_9B, DeviceLimits(needed, "metal"), FULL)
    assert at_that.context_tokens == 49_152
    assert at_that.total_bytes == needed


# Half of a model whose whole weights are 20 GB.
HALF = replace(QWEN_9B, weights_bytes=10 * GB, state_bytes=0, token_values=64 * 2 * 4 * 128)


def rank_on(limit_bytes: int) -> Callable[[int | None], MemoryPlan]:
    return lambda kv_bits: plan(HALF, DeviceLimits(limit_bytes, "metal"), kv_bits)


def agreement_of(*ranks: Callable[[int | None], MemoryPlan]) -> list[MemoryPlan]:
    """Return the plan of each rank. What the others have is learnt by trying again."""
    minimums: dict[str, int] = {}

    def least(name: str, value: int) -> int:
        minimums[name] = min(value, minimums.get(name, value))
        return minimums[name]

    # First all learn the bits, then what they have room for with these.
    for _ in range(2):
        minimums = {"kv bits": minimums["kv bits"]} if minimums else {}
        for rank in ranks:
            agreed(rank, None, least)
    return [agreed(rank, None, least) for rank in ranks]


def test_ranks_agree_on_the_plan_of_the_smallest() -> None:
    small, large = rank_on(14 * GB), rank_on(40 * GB)
    alone = small(None)
    agreement = agreement_of(small, large)
    assert alone.precision.bits == 8
    assert large(None).precision.bits is None
    for each in agreement:
        assert each.budget == alone.budget
        assert each.precision == alone.precision
        assert each.scores_bytes <= alone.scores_bytes
    assert agreement[1].limit_bytes == 40 * GB
    assert agreement[1].reason == "8-bit, for the machine with the least memory"


def test_a_worker_that_shares_nothing_keeps_its_plan() -> None:
    own = rank_on(14 * GB)(None)
    promised = agreed(rank_on(14 * GB), None, lambda _, value: value)
    assert promised == replace(own, budget=replace(own.budget, max_tokens=own.context_tokens))
    assert promised.context_tokens == own.context_tokens
