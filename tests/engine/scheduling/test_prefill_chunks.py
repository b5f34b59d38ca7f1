"""Size of prefill chunks: by measured time, by memory and by pairs after a long prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.scheduling.prefill_chunks import (
    FIRST_CHUNK,
    LONE_CHUNK_S,
    METAL_PAIRS,
    SHARED_CHUNK_S,
    AttentionScoresBudget,
    ChunkSizer,
    PromptRest,
)

FAST = 10_000
SLOW = 100


def measured(sizer: ChunkSizer, tokens_per_s: float, before: int = 0) -> ChunkSizer:
    sizer.note_chunk(512, before, 512 / tokens_per_s, is_shared=False)
    return sizer


def test_first_chunk_is_small_and_smaller_after_a_long_prompt() -> None:
    sizer = ChunkSizer(2048)
    assert sizer.next_chunk(0, is_shared=False) == FIRST_CHUNK
    assert sizer.next_chunk(120_000, is_shared=False) == 16


def test_first_chunk_does_not_exceed_the_maximum() -> None:
    assert ChunkSizer(128).next_chunk(0, is_shared=False) == 128


def test_lone_chunk_on_a_fast_machine_has_the_maximum_size() -> None:
    assert measured(ChunkSizer(2048), FAST).next_chunk(512, is_shared=False) == 2048


@pytest.mark.parametrize("tokens_per_s", [5, 20, 55, 100, 400, 580])
def test_lone_chunk_on_a_slow_machine_takes_about_its_time_budget(tokens_per_s: float) -> None:
    chunk = measured(ChunkSizer(2048), tokens_per_s).next_chunk(0, is_shared=False)
    assert chunk == 16 or 0.6 * LONE_CHUNK_S < chunk / tokens_per_s <= LONE_CHUNK_S


def test_lone_chunk_follows_the_newest_measurement_at_once() -> None:
    sizer = measured(ChunkSizer(2048), 10)
    assert sizer.next_chunk(0, is_shared=False) == 32
    assert measured(sizer, FAST).next_chunk(0, is_shared=False) == 2048


def test_chunk_after_more_tokens_than_measured_is_expected_to_be_slower() -> None:
    sizer = measured(ChunkSizer(2048), SLOW)
    assert sizer.next_chunk(8192, is_shared=False) < sizer.next_chunk(0, is_shared=False) * 0.6
    far = measured(ChunkSizer(2048), SLOW, before=100_000)
    assert far.next_chunk(0, is_shared=False) == far.next_chunk(100_000, is_shared=False)


def test_tiny_chunk_before_a_checkpoint_does_not_count_as_a_measurement() -> None:
    sizer = measured(ChunkSizer(2048), FAST)
    sizer.note_chunk(1, 512, 0.3, is_shared=False)
    assert sizer.next_chunk(513, is_shared=False) == 2048


@pytest.mark.parametrize("tokens", [1, 15, 16, 100, 512])
def test_unmeasured_chunk_is_expected_to_be_slow(tokens: int) -> None:
    unmeasured = ChunkSizer(2048).expected_s(tokens, 0)
    assert unmeasured == pytest.approx(tokens / 10)
    assert measured(ChunkSizer(2048), 200).expected_s(tokens, 0) == pytest.approx(tokens / 200)


@pytest.mark.parametrize("before", [0, 1000, 32_768, 65_536, 131_072, 262_144])
def test_chunk_on_metal_stays_within_the_pair_limit(before: int) -> None:
    sizer = measured(ChunkSizer(2048, max_pairs=METAL_PAIRS), 10**6)
    chunk = sizer.next_chunk(before, is_shared=False)
    assert chunk == (2048 if before <= 32_768 else METAL_PAIRS // before)


@pytest.mark.parametrize("before", [0, 7, 4000, 50_000, 99_999])
@pytest.mark.parametrize("tokens_per_s", [3, 77, 333, 5000])
def test_chunk_sizes_are_whole_tiles(before: int, tokens_per_s: float) -> None:
    sizer = measured(ChunkSizer(2048, max_pairs=METAL_PAIRS), tokens_per_s)
    chunk = sizer.next_chunk(before, is_shared=False)
    assert chunk % (64 if chunk >= 256 else 16) == 0


def test_shared_chunk_takes_its_time_budget_and_then_decoding_is_due() -> None:
    sizer = ChunkSizer(2048)
    assert sizer.next_chunk(0, is_shared=True) == 16
    sizer.note_chunk(1000, 0, 1.0, is_shared=False)
    assert sizer.next_chunk(0, is_shared=True) == SHARED_CHUNK_S * 1000 // 16 * 16
    sizer.note_chunk(240, 0, 0.24, is_shared=True)
    assert sizer.next_chunk(240, is_shared=True) == 0
    sizer.note_decode(1.0)
    assert sizer.next_chunk(240, is_shared=True) > 0


@pytest.mark.parametrize("before", [0, 100, 5000, 16_000, 120_000])
def test_attention_scores_of_a_chunk_fit_their_budget(before: int) -> None:
    scores = AttentionScoresBudget(9 * 10**9, 32 * 18)
    chunk = measured(ChunkSizer(2048, scores), 10**6).next_chunk(before, is_shared=False)
    assert chunk * (before + chunk) * scores.pair_bytes <= scores.nbytes
    larger = chunk + 64
    assert chunk == 2048 or larger * (before + larger) * scores.pair_bytes > scores.nbytes


def test_chunk_after_a_very_long_prompt_has_the_minimum_size() -> None:
    sizer = ChunkSizer(2048, AttentionScoresBudget(10**6, 32 * 18), METAL_PAIRS)
    assert sizer.next_chunk(1_000_000, is_shared=False) == 16
    assert sizer.next_chunk(1_000_000, is_shared=True) == 16


rests = st.lists(
    st.builds(PromptRest, st.integers(1, 600), st.integers(0, 20_000)), min_size=1, max_size=8
)


@given(rests, st.sampled_from([60, 400, 3000]), st.booleans())
def test_prompts_of_a_chunk_take_its_time_budget_together(
    rests: list[PromptRest], tokens_per_s: float, is_shared: bool
) -> None:
    sizer = measured(ChunkSizer(2048), tokens_per_s)
    count = sizer.prompts_in_chunk(rests, is_shared=is_shared)
    budget_s = SHARED_CHUNK_S if is_shared else LONE_CHUNK_S
    if count > 1:
        assert sum(sizer.expected_s(*rest) for rest in rests[:count]) <= budget_s + 1e-9


def test_short_prompts_share_a_chunk_until_it_is_full() -> None:
    sizer = measured(ChunkSizer(2048), 100)
    assert sizer.prompts_in_chunk([PromptRest(40, 0)] * 4, is_shared=False) == 4
    assert sizer.prompts_in_chunk([PromptRest(80, 0)] * 8, is_shared=False) == 4


def test_no_chunk_ends_within_a_prompt_that_shares_it() -> None:
    sizer = measured(ChunkSizer(2048), 100)
    assert sizer.prompts_in_chunk([PromptRest(400, 0), PromptRest(40, 0)], is_shared=False) == 0
    assert sizer.prompts_in_chunk([PromptRest(80, 0), PromptRest(300, 0)], is_shared=False) == 1


def test_short_prompt_does_not_wait_for_a_much_longer_one() -> None:
    sizer = measured(ChunkSizer(2048), FAST)
    short, long = PromptRest(60, 0), PromptRest(700, 0)
    assert sizer.prompts_in_chunk([short, long], is_shared=False) == 1
    assert sizer.prompts_in_chunk([long, short], is_shared=False) == 2
    assert sizer.prompts_in_chunk([long, long], is_shared=False) == 2


def test_no_prompt_has_room_while_decoding_is_due() -> None:
    sizer = measured(ChunkSizer(2048), FAST)
    sizer.note_other(1.0)
    assert sizer.prompts_in_chunk([PromptRest(20, 0)] * 2, is_shared=True) == 0
    assert sizer.prompts_in_chunk([PromptRest(20, 0)] * 2, is_shared=False) == 2


def test_several_prompts_are_no_fewer_where_chunks_of_one_are_small() -> None:
    sizer = measured(ChunkSizer(128), 300)
    assert sizer.next_chunk(0, is_shared=False) == 128
    assert sizer.prompts_in_chunk([PromptRest(60, 0)] * 8, is_shared=False) == 8
    assert sizer.prompts_in_chunk([PromptRest(60, 0), PromptRest(129, 0)], is_shared=False) == 1
