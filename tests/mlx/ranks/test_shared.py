"""What ranks agree on about their disks and the prefixes in memory, with a scripted rank 0."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from pensieve.engine.ranks.shared import SharedDiskTier
from pensieve.engine.ranks.wire import DIVERGED
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from tests.engine.counting_backend import RememberedState


class Lead:
    """Rank 0 without followers, or a follower that hears what `heard` has for a kind."""

    def __init__(self, heard: dict[str, Any] | None = None) -> None:
        self._heard = heard
        self.is_lead = heard is None

    def decide(self, kind: str, make: Callable[[], Any]) -> Any:
        return make() if self._heard is None else self._heard[kind]

    def least(self, kind: str, value: int) -> int:
        return value

    def fail(self, reason: str) -> None: ...

    def end_loading(self) -> None: ...

    def end(self) -> None: ...

    def wait_closed(self) -> None: ...


class LeftError(Exception):
    pass


def left(code: int, reason: str) -> None:
    raise LeftError(code, reason)


class BrokenDisk(NoDiskTier):
    def pinned(self) -> Iterator[Sequence[int]]:
        yield [1, 2]
        raise OSError("input/output error")


def cache_of(*lengths: int) -> PrefixCache:
    prefixes = PrefixCache(b"")
    for length in lengths:
        tokens = tuple(range(length, 2 * length))
        prefixes.insert(tokens, RememberedState(tokens))
    return prefixes


def test_prefixes_that_cannot_be_read_end_the_list_for_all_ranks() -> None:
    assert list(SharedDiskTier(Lead(), BrokenDisk()).pinned()) == [[1, 2]]


def test_a_rank_with_other_prefixes_in_memory_ends() -> None:
    heard = {"prefixes": cache_of(300, 400).digest}
    follower = SharedDiskTier(Lead(heard), NoDiskTier(), left)
    follower.spill(cache_of(300, 400))
    for other in (cache_of(300), cache_of(400, 300), cache_of(300, 401)):
        with pytest.raises(LeftError) as raised:
            follower.spill(other)
        assert raised.value.args[0] == DIVERGED
