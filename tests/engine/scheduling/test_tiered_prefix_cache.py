"""One interface over memory and disk: what is matched is acquired, and matching changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.generation import Generation, Priority
from pensieve.engine.scheduling.backend import ReleasedSequence
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, CachedPrefix, Hit, PrefixCache
from pensieve.engine.scheduling.restore import Restore
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from tests.engine.counting_backend import RememberedState

TOKENS = tuple(range(2000))


@dataclass
class OnePartRestore:
    tokens: tuple[int, ...]
    hit: Hit | None = None

    @property
    def is_done(self) -> bool:
        return self.hit is not None

    def step(self) -> None:
        self.hit = Hit(RememberedState(self.tokens), len(self.tokens))


@dataclass
class ScriptedDisk(NoDiskTier):
    """Has the first `tokens` of `TOKENS`, and the sequences in `stored`."""

    tokens: int = 0
    stored: set[tuple[int, ...]] = field(default_factory=set)

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        return min(self.tokens, len(tokens) - 1)

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> OnePartRestore:
        return OnePartRestore(tuple(tokens[: self.match(hashes, tokens)]))

    def is_stored(self, prefix: CachedPrefix) -> bool:
        return tuple(prefix.tokens) in self.stored


def released(tokens: tuple[int, ...]) -> ReleasedSequence:
    return ReleasedSequence(tokens, RememberedState(tokens))


def insert(cache: TieredPrefixCache, tokens: tuple[int, ...], priority: Priority = "main") -> None:
    cache.insert(Generation(tokens, 1, priority=priority), released(tokens))


def restored_tokens(restore: Restore) -> int:
    while not restore.is_done:
        restore.step()
    return restore.hit.cached_tokens if restore.hit else 0


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_as_much_is_acquired_as_was_matched_wherever_it_is(in_memory: int, on_disk: int) -> None:
    cache = TieredPrefixCache(PrefixCache(b"model"), ScriptedDisk(on_disk))
    if in_memory:
        insert(cache, TOKENS[:in_memory])
    matched = cache.match(TOKENS)
    assert matched >= max(in_memory - 16, on_disk - BLOCK_TOKENS, 0)
    assert restored_tokens(cache.acquire(TOKENS)) == matched


def test_prefix_in_memory_is_restored_at_once_and_one_on_disk_in_throttled_steps() -> None:
    throttled: list[Restore] = []

    def throttle(restore: Restore) -> Restore:
        throttled.append(restore)
        return restore

    cache = TieredPrefixCache(PrefixCache(b"model"), ScriptedDisk(1000), throttle)
    on_disk = cache.acquire(TOKENS)
    assert not on_disk.is_done
    insert(cache, TOKENS[:1500])
    in_memory = cache.acquire(TOKENS)
    assert in_memory.is_done
    assert restored_tokens(in_memory) == 1500
    assert throttled == [on_disk]


def test_only_stored_prefixes_are_evicted_when_asked_for() -> None:
    cache = TieredPrefixCache(PrefixCache(b"model"), ScriptedDisk(stored={TOKENS[:500]}))
    other = tuple(range(5000, 5700))
    insert(cache, TOKENS[:500])
    insert(cache, other)
    cache.evict_stored()
    assert cache.match((*TOKENS[:500], 1)) == 0
    assert cache.match((*other, 1)) == 700
    cache.evict_all()
    assert cache.nbytes == 0


def test_short_side_request_is_not_cached() -> None:
    cache = TieredPrefixCache(PrefixCache(b"model"))
    insert(cache, TOKENS[:1000], "side")
    assert cache.match(TOKENS) == 0
    insert(cache, TOKENS[:1100], "side")
    assert cache.match(TOKENS) == 1100


beginnings = st.sampled_from([TOKENS[:n] for n in (300, 600, 601, 900)])
operations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "match", "acquire", "evict"]), beginnings, st.integers(-4, -1)
    ),
    max_size=30,
)


def choices(
    history: list[tuple[str, tuple[int, ...], int]], *, ballast: int = 0, with_matches: bool = True
) -> list[object]:
    """Run a history; return the hits and, in the end, the cached sequences in order of use.

    Before each insertion `ballast` others go elsewhere, so that entries have other addresses and
    sets of them another order.
    """
    memory, elsewhere = PrefixCache(b"model"), PrefixCache(b"ballast")
    cache = TieredPrefixCache(memory)
    hits: list[object] = []
    for operation, beginning, end in history:
        tokens = (*beginning, *[end] * 20)
        match operation:
            case "insert":
                for _ in range(ballast):
                    elsewhere.insert((len(elsewhere),) * 20, RememberedState(tokens[:20]))
                insert(cache, tokens)
            case "acquire":
                hits.append(cache.acquire((*beginning, 7)))
            case "evict":
                cache.evict(1)
            case _ if with_matches:
                cache.match(tokens)
    return [*hits, *(tuple(prefix.tokens) for prefix in memory.sequences())]


@given(operations, st.integers(1, 7))
def test_same_history_leads_to_the_same_choices_with_or_without_matches(
    history: list[tuple[str, tuple[int, ...], int]], ballast: int
) -> None:
    expected = choices(history)
    assert choices(history, ballast=ballast) == expected
    assert choices(history, with_matches=False) == expected
