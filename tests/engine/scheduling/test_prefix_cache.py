"""Look-up, moves, eviction order and byte count of the prefix cache, over fake KV states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, MIN_TOKENS, PrefixCache
from tests.engine.counting_backend import RememberedState


def cache_of(*sequences: range | list[int]) -> PrefixCache:
    cache = PrefixCache(b"model")
    for tokens in sequences:
        cache.insert(tokens, RememberedState(tuple(tokens)))
    return cache


def acquired_tokens(cache: PrefixCache, tokens) -> int:
    hit = cache.acquire(tokens)
    cache.check()
    if hit is None:
        return 0
    assert len(hit.state.seen) == hit.cached_tokens
    return hit.cached_tokens


@pytest.mark.parametrize("length", [16, 100, 256, 257, 512, 1000])
def test_continuation_finds_every_token_and_moves_the_entry(length: int) -> None:
    cache = cache_of(range(length))
    assert acquired_tokens(cache, [*range(length), 7, 7]) == length
    assert len(cache) == 0
    assert cache.nbytes == 0


def test_last_token_is_never_taken_from_the_cache() -> None:
    assert acquired_tokens(cache_of(range(300)), range(300)) == 299


def test_early_branch_copies_and_leaves_the_longer_entry() -> None:
    cache = cache_of(range(2000))
    assert acquired_tokens(cache, [*range(700), -1, -2]) == 700
    assert acquired_tokens(cache, [*range(2000), 5]) == 2000


def test_late_branch_moves_the_entry_without_a_copy() -> None:
    cache = cache_of(range(1000))
    assert acquired_tokens(cache, [*range(990), -1, -2]) == 990
    assert len(cache) == 0


def test_longest_of_several_prefixes_is_found() -> None:
    cache = cache_of([*range(600), 1, 1, 1], [*range(600), 2, 2, 2, 2], [*range(500), 3])
    assert acquired_tokens(cache, [*range(600), 2, 2, 9]) == 602


def test_inserted_sequence_replaces_its_own_prefix() -> None:
    cache = cache_of(range(500), range(900))
    assert len(cache) == 1
    cache.check()


def test_state_with_checkpoints_is_trimmed_to_the_last_usable_one() -> None:
    cache = PrefixCache(b"model")
    cache.insert(range(1000), RememberedState(tuple(range(1000)), step=300))
    assert acquired_tokens(cache, [*range(700), -1]) == 600


def test_entry_that_shares_less_is_used_if_more_of_it_is_usable() -> None:
    cache = PrefixCache(b"model")
    cache.insert([*range(1600), 1], RememberedState((*range(1600), 1), step=1500))
    cache.insert([*range(1000), 2], RememberedState((*range(1000), 2)))
    prompt = [*range(1400), -1]
    assert cache.match(prompt) == 1000
    assert acquired_tokens(cache, prompt) == 1000


@given(
    st.lists(st.tuples(st.integers(0, 1500), st.sampled_from([1, 300, 700])), max_size=6),
    st.integers(0, 1500),
)
def test_match_is_the_most_usable_tokens_of_any_entry(
    branches: list[tuple[int, int]], length: int
) -> None:
    cache = PrefixCache(b"model")
    prompt = [*range(length), -1]
    usable = [0]
    for number, (shared, step) in enumerate(branches):
        tokens = (*range(shared), *[-2 - number] * 800)  # no entry is a prefix of another
        state = RememberedState(tokens, step)
        cache.insert(tokens, state)
        usable.append(state.usable_tokens(min(shared, length)))
    longest = max(usable)
    assert cache.match(prompt) == (longest if longest >= MIN_TOKENS else 0)


def test_hashes_differ_between_models() -> None:
    assert PrefixCache(b"a").hashes(range(256)) != PrefixCache(b"b").hashes(range(256))


def test_least_recently_acquired_entry_is_evicted_first() -> None:
    cache = cache_of([1] * 1000, [2] * 1000)
    assert acquired_tokens(cache, [1] * 400 + [9]) == 400
    cache.evict(1)
    assert acquired_tokens(cache, [1] * 1000 + [9]) == 1000
    assert acquired_tokens(cache, [2] * 1000 + [9]) == 0


def test_match_does_not_protect_an_entry_from_eviction() -> None:
    cache = cache_of([1] * 1000, [2] * 1000)
    assert cache.match([1] * 1000 + [9]) == 1000
    cache.evict(1)
    assert acquired_tokens(cache, [2] * 1000 + [9]) == 1000
    assert acquired_tokens(cache, [1] * 1000 + [9]) == 0


@given(st.permutations(range(8)))
def test_entry_with_the_shortest_remainder_is_moved_among_equal_prefixes(order: list[int]) -> None:
    cache = cache_of(*([*range(600), *[-1 - number] * (10 + number)] for number in order))
    assert acquired_tokens(cache, [*range(600), 7]) == 600
    assert sorted(len(entry.tokens) for entry in cache.sequences()) == list(range(611, 618))


@given(st.permutations(range(8)))
def test_choice_among_equal_entries_depends_only_on_their_tokens(
    order: list[int],
) -> None:
    cache = cache_of(*([*range(600), -1 - number] for number in order))
    assert acquired_tokens(cache, [*range(600), 7]) == 600
    assert {entry.tokens[-1] for entry in cache.sequences()} == set(range(-7, 0))


def test_conversation_is_trimmed_to_its_pinned_prefix_before_that_is_evicted() -> None:
    cache = PrefixCache(b"model")
    cache.insert(range(3000), RememberedState(tuple(range(3000))), pinned_tokens=1200)
    cache.insert([5] * 100, RememberedState((5,) * 100))
    assert cache.evict(18_000) == 18_000
    assert acquired_tokens(cache, range(3000)) == 1200


def test_side_requests_are_evicted_before_conversations() -> None:
    cache = PrefixCache(b"model")
    cache.insert(range(1000), RememberedState(tuple(range(1000))))
    cache.insert([5] * 1000, RememberedState((5,) * 1000), is_side=True)
    cache.evict(1)
    assert acquired_tokens(cache, [*range(1000), 1]) == 1000


def test_spare_prefixes_are_evicted_before_all_others_the_last_inserted_first() -> None:
    cache = PrefixCache(b"model")
    cache.insert([5] * 1000, RememberedState((5,) * 1000), is_side=True)
    for token in (1, 2):
        cache.insert_spare([token] * 1000, RememberedState((token,) * 1000))
    cache.insert([6] * 1000, RememberedState((6,) * 1000))
    left: list[list[int]] = []
    while cache.evict(1):
        left.append([entry.tokens[0] for entry in cache.sequences()])
    assert left == [[6, 5, 1], [6, 5], [6], []]


def test_spare_prefix_that_a_request_continued_is_kept_like_any_other() -> None:
    cache = PrefixCache(b"model")
    cache.insert_spare([1] * 1000, RememberedState((1,) * 1000))
    hit = cache.acquire([1] * 1000 + [2])
    assert hit is not None
    assert hit.cached_tokens == 1000
    cache.insert([1] * 1000 + [2], hit.state)
    cache.insert([5] * 1000, RememberedState((5,) * 1000), is_side=True)
    cache.evict(1)
    assert cache.match([1] * 1000 + [2, 3]) > 0


def test_spare_prefix_needs_no_writing() -> None:
    cache = PrefixCache(b"model")
    cache.insert_spare([1] * 1000, RememberedState((1,) * 1000))
    assert cache.version == 0
    cache.insert([1] * 20, RememberedState((1,) * 20))
    assert cache.version == 1


def test_eviction_of_more_than_is_cached_empties_the_cache() -> None:
    cache = cache_of(range(100), [3] * 100)
    assert cache.evict(10**9) == 2000
    assert len(cache) == 0


class AnyHistory(RuleBasedStateMachine):
    """After any operations a hit is a true prefix and the byte count is right."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(b"model")

    # Long runs of few tokens, so that prefixes are shared across block borders.
    sequences = st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, BLOCK_TOKENS + 50)), min_size=1, max_size=5
    ).map(lambda runs: [token for token, length in runs for _ in range(length)])

    @rule(
        tokens=sequences,
        pinned=st.integers(0, 400),
        is_side=st.booleans(),
        step=st.sampled_from([1, 100]),
    )
    def insert(self, tokens: list[int], pinned: int, is_side: bool, step: int) -> None:
        state = RememberedState(tuple(tokens), step)
        self.cache.insert(tokens, state, pinned_tokens=min(pinned, len(tokens)), is_side=is_side)

    @rule(tokens=sequences)
    def insert_spare(self, tokens: list[int]) -> None:
        self.cache.insert_spare(tokens, RememberedState(tuple(tokens)))

    @rule(tokens=sequences)
    def acquire(self, tokens: list[int]) -> None:
        hit = self.cache.acquire(tokens)
        if hit is not None:
            assert 0 < hit.cached_tokens < len(tokens)
            assert hit.state.seen == tuple(tokens[: hit.cached_tokens])

    @rule(nbytes=st.integers(0, 20_000))
    def evict(self, nbytes: int) -> None:
        nbytes_before = self.cache.nbytes
        assert self.cache.evict(nbytes) >= min(nbytes, nbytes_before)

    @invariant()
    def bytes_add_up(self) -> None:
        self.cache.check()


TestAnyHistory = AnyHistory.TestCase


@given(st.lists(st.integers(0, 1), min_size=17, max_size=700), st.integers(0, 700))
def test_common_prefix_is_found_to_the_token(tokens: list[int], at: int) -> None:
    at = min(at, len(tokens) - 1)
    query = [*tokens[:at], 1 - tokens[at], *tokens[at:]]
    found = acquired_tokens(cache_of(tokens), query)
    assert found == (at if at >= 16 else 0)
