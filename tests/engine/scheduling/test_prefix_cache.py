"""The prefix cache over counting states: what is found, what is moved, what goes first, and that the bytes add up."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, PrefixCache


@dataclass
class CountingState:
    """A KV cache of ten bytes a token; a fixed step stands for architectures that can only be cut at checkpoints."""

    tokens: int
    step: int = 1

    @property
    def nbytes(self) -> int:
        return 10 * self.tokens

    def usable_tokens(self, tokens: int) -> int:
        tokens = min(tokens, self.tokens)
        return tokens if tokens == self.tokens else tokens // self.step * self.step

    def trim(self, tokens: int) -> None:
        assert self.usable_tokens(tokens) == tokens
        self.tokens = tokens

    def copy(self, tokens: int) -> "CountingState":
        assert self.usable_tokens(tokens) == tokens
        return CountingState(tokens, self.step)


def kept(*sequences: range | list[int]) -> PrefixCache:
    cache = PrefixCache(b"model")
    for tokens in sequences:
        cache.insert(tokens, CountingState(len(tokens)))
    return cache


def taken(cache: PrefixCache, tokens) -> int:
    hit = cache.acquire(tokens)
    cache.check()
    if hit is None:
        return 0
    assert hit.state.tokens == hit.cached_tokens
    return hit.cached_tokens


@pytest.mark.parametrize("length", [16, 100, 256, 257, 512, 1000])
def test_a_continuation_finds_every_token_and_moves_the_cache(length: int) -> None:
    cache = kept(range(length))
    assert taken(cache, [*range(length), 7, 7]) == length
    assert len(cache) == 0
    assert cache.nbytes == 0


def test_the_last_token_is_always_left_to_process() -> None:
    assert taken(kept(range(300)), range(300)) == 299


def test_a_branch_copies_and_leaves_the_longer_one_where_it_is() -> None:
    cache = kept(range(2000))
    assert taken(cache, [*range(700), -1, -2]) == 700
    assert taken(cache, [*range(2000), 5]) == 2000


def test_a_short_rest_is_not_worth_a_copy() -> None:
    cache = kept(range(1000))
    assert taken(cache, [*range(990), -1, -2]) == 990
    assert len(cache) == 0


def test_the_longest_of_several_is_found() -> None:
    cache = kept([*range(600), 1, 1, 1], [*range(600), 2, 2, 2, 2], [*range(500), 3])
    assert taken(cache, [*range(600), 2, 2, 9]) == 602


def test_a_sequence_replaces_what_it_continues() -> None:
    cache = kept(range(500), range(900))
    assert len(cache) == 1
    cache.check()


def test_what_can_only_be_cut_at_checkpoints_is_used_at_the_last_one() -> None:
    cache = PrefixCache(b"model")
    cache.insert(range(1000), CountingState(1000, step=300))
    assert taken(cache, [*range(700), -1]) == 600


def test_nothing_is_shared_between_models() -> None:
    assert PrefixCache(b"a").hashes(range(256)) != PrefixCache(b"b").hashes(range(256))


def test_the_least_recently_used_goes_first_and_a_hit_is_use() -> None:
    cache = kept([1] * 1000, [2] * 1000)
    assert taken(cache, [1] * 400 + [9]) == 400
    cache.evict(1)
    assert taken(cache, [1] * 1000 + [9]) == 1000
    assert taken(cache, [2] * 1000 + [9]) == 0


def test_a_prefix_that_was_only_looked_for_is_evicted_in_its_turn() -> None:
    cache = kept([1] * 1000, [2] * 1000)
    assert cache.match([1] * 1000 + [9]) == 1000
    cache.evict(1)
    assert taken(cache, [2] * 1000 + [9]) == 1000
    assert taken(cache, [1] * 1000 + [9]) == 0


@given(st.permutations(range(8)))
def test_of_equally_long_prefixes_the_one_with_the_shortest_rest_is_moved(order: list[int]) -> None:
    cache = kept(*([*range(600), *[-1 - number] * (10 + number)] for number in order))
    assert taken(cache, [*range(600), 7]) == 600
    assert sorted(len(left.tokens) for left in cache.sequences()) == list(range(611, 618))


@given(st.permutations(range(8)))
def test_which_of_equally_long_sequences_is_moved_depends_on_their_tokens_alone(
    order: list[int],
) -> None:
    cache = kept(*([*range(600), -1 - number] for number in order))
    assert taken(cache, [*range(600), 7]) == 600
    assert {left.tokens[-1] for left in cache.sequences()} == set(range(-7, 0))


def test_a_conversation_is_cut_back_to_its_pinned_prefix_before_that_goes_too() -> None:
    cache = PrefixCache(b"model")
    cache.insert(range(3000), CountingState(3000), pinned_tokens=1200)
    cache.insert([5] * 100, CountingState(100))
    assert cache.evict(18_000) == 18_000
    assert taken(cache, range(3000)) == 1200


def test_side_requests_go_before_any_conversation() -> None:
    cache = PrefixCache(b"model")
    cache.insert(range(1000), CountingState(1000))
    cache.insert([5] * 1000, CountingState(1000), is_side=True)
    cache.evict(1)
    assert taken(cache, [*range(1000), 1]) == 1000


def test_room_is_made_as_far_as_there_is_any() -> None:
    cache = kept(range(100), [3] * 100)
    assert cache.evict(10**9) == 2000
    assert len(cache) == 0


class AnyHistory(RuleBasedStateMachine):
    """Whatever is kept, taken and evicted: a hit is a true prefix, and the books balance."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(b"model")

    # Long runs of few letters, so that prefixes are shared across block borders.
    sequences = st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, BLOCK_TOKENS + 50)), min_size=1, max_size=5
    ).map(lambda runs: [letter for letter, length in runs for _ in range(length)])

    @rule(
        tokens=sequences,
        pinned=st.integers(0, 400),
        is_side=st.booleans(),
        step=st.sampled_from([1, 100]),
    )
    def keep(self, tokens: list[int], pinned: int, is_side: bool, step: int) -> None:
        state = Remembering(tuple(tokens), step)
        self.cache.insert(tokens, state, pinned_tokens=min(pinned, len(tokens)), is_side=is_side)

    @rule(tokens=sequences)
    def take(self, tokens: list[int]) -> None:
        hit = self.cache.acquire(tokens)
        if hit is not None:
            assert 0 < hit.cached_tokens < len(tokens)
            assert hit.state.seen == tuple(tokens[: hit.cached_tokens])

    @rule(nbytes=st.integers(0, 20_000))
    def evict(self, nbytes: int) -> None:
        held = self.cache.nbytes
        assert self.cache.evict(nbytes) >= min(nbytes, held)

    @invariant()
    def books_balance(self) -> None:
        self.cache.check()


@dataclass
class Remembering:
    """A state that knows which tokens it is of."""

    seen: tuple[int, ...]
    step: int

    @property
    def nbytes(self) -> int:
        return 10 * len(self.seen)

    def usable_tokens(self, tokens: int) -> int:
        tokens = min(tokens, len(self.seen))
        return tokens if tokens == len(self.seen) else tokens // self.step * self.step

    def trim(self, tokens: int) -> None:
        assert self.usable_tokens(tokens) == tokens
        self.seen = self.seen[:tokens]

    def copy(self, tokens: int) -> "Remembering":
        assert self.usable_tokens(tokens) == tokens
        return Remembering(self.seen[:tokens], self.step)


TestAnyHistory = AnyHistory.TestCase


@given(st.lists(st.integers(0, 1), min_size=17, max_size=700), st.integers(0, 700))
def test_the_common_prefix_is_found_to_the_token(tokens: list[int], at: int) -> None:
    at = min(at, len(tokens) - 1)
    asked = [*tokens[:at], 1 - tokens[at], *tokens[at:]]
    found = taken(kept(tokens), asked)
    assert found == (at if at >= 16 else 0)
