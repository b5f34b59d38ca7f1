# pyright: basic
"""What ranks of one model replace of a worker's engine, which is otherwise the same on each.

Rank 0's clock, compiled grammars and samples count for all, and what one rank does not have on
disk, none has. A class has the interface of what it replaces.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import Generation
from pensieve.engine.grammar.queue import GrammarQueue, Prepare
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.protocol import Failed
from pensieve.engine.ranks.place import RankPlace
from pensieve.engine.ranks.rendezvous import join
from pensieve.engine.ranks.sharding import load_shards
from pensieve.engine.ranks.wire import DIVERGED, PORT_TAKEN, STEP_FAILED, Leave, Wire, leave
from pensieve.engine.scheduling.backend import Outcome
from pensieve.engine.scheduling.disk_tier import DiskTier
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, CachedPrefix, Hit, PrefixCache
from pensieve.engine.scheduling.restore import Restore
from pensieve.engine.worker.memory_pressure import ReadPressure
from pensieve.engine.worker.parts import EngineParts, ModelShare
from pensieve.errors import GrammarError

_log = logging.getLogger("pensieve.engine")

# In place of a pause: nothing is left to write.
_NEVER_MS = 2**53


def parts_of(wire: Wire, place: RankPlace) -> EngineParts:
    """Join the other ranks; return what this one replaces. See `rendezvous.join`."""
    # MLX holds Python's lock while it waits for the others: so they come together.
    wire.least("ranks to join", place.rank)
    group = _joined(place)

    def clock() -> float:
        return wire.decide("clock", time.monotonic)

    return EngineParts(
        ModelShare(place.rank, place.ranks, place.rendezvous.backend),
        partial(load_shards, group=group),
        wire.least,
        clock,
        partial(SharedBackend, clock=clock, draw=partial(drawn, group, is_lead=wire.is_lead)),
        partial(SharedDiskTier, wire),
        partial(SharedGrammarQueue, wire),
        partial(shared_pressure, wire),
    )


def _joined(place: RankPlace, leave: Leave = leave) -> Any:
    """Join the others. A port that is taken ends the rank: the next group meets at others.

    MLX takes ports as they are named, and those are drawn blindly for all machines.
    """
    try:
        return join(place.rendezvous, place.rank)
    except RuntimeError as error:
        if "bind" not in str(error):
            raise
        return leave(PORT_TAKEN, str(error))


def drawn(group: Any, sampled: mx.array, *, is_lead: bool) -> mx.array:
    """Return rank 0's token ids [rows], whatever this rank sampled."""
    own = sampled.astype(mx.uint32)
    return mx.distributed.all_sum(own if is_lead else own * 0, group=group)


def shared_pressure(wire: Wire, own: ReadPressure | None) -> ReadPressure | None:
    """Return a reader of the highest memory pressure of all ranks. None: they have none."""
    if own is None:
        return None
    return lambda: -wire.least("memory pressure", -own())


class SharedBackend(BatchBackend):
    """A step that fails ends the rank, and thereby all: the others may have done it."""

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        try:
            super().insert(key, generation, hit)
        except GrammarError:
            raise
        except Exception as error:  # noqa: BLE001 - MLX may raise anything
            leave(STEP_FAILED, f"a request failed: {type(error).__name__}: {error}")

    def step(self) -> list[Outcome]:
        try:
            return super().step()
        except Exception as error:  # noqa: BLE001 - MLX may raise anything
            leave(STEP_FAILED, f"a step failed: {type(error).__name__}: {error}")


class SharedGrammarQueue(GrammarQueue):
    """Every rank compiles the grammars; rank 0 says which are ready."""

    def __init__(self, wire: Wire, prepare: Prepare) -> None:
        super().__init__(prepare)
        self._wire = wire

    def take_ready(self) -> list[tuple[int, Generation | Failed]]:
        own: dict[int, Generation | Failed] = {}

        def decided() -> list[tuple[int, str, str]]:
            own.update(super(SharedGrammarQueue, self).take_ready())
            return [
                (key, ready.message, ready.kind) if isinstance(ready, Failed) else (key, "", "")
                for key, ready in own.items()
            ]

        ready = self._wire.decide("grammars", decided)
        return [
            (key, own[key] if key in own else self._take(key, message, kind))
            for key, message, kind in ready
        ]

    def _take(self, key: int, message: str, kind: Any) -> Generation | Failed:
        """Wait for a grammar that rank 0 has compiled. Raises what compiling raises."""
        pending = self._pending.pop(key)
        if kind:
            return Failed(message, kind)
        pending.compiled.result()
        return pending.generation


class SharedDiskTier:
    """Each rank stores its part of the KV caches on its own disk."""

    def __init__(self, wire: Wire, own: DiskTier, leave: Leave = leave) -> None:
        self._wire = wire
        self._own = own
        self._leave = leave

    @property
    def is_storing(self) -> bool:
        return self._wire.decide("storing", lambda: self._own.is_storing)

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        return self._wire.least("tokens on disk", self._own.match(hashes, tokens))

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> Restore:
        held = self.match(hashes, tokens)
        blocks = hashes[: held // BLOCK_TOKENS]
        own = self._own.acquire(blocks, tokens[: held + 1], is_use=is_use)
        return SharedRestore(self._wire, own)

    def pinned(self) -> Iterator[Sequence[int]]:
        own = self._own.pinned()
        while tokens := self._wire.decide("pinned prefix", lambda: _next_of(own)):
            yield tokens

    def is_stored(self, prefix: CachedPrefix) -> bool:
        return bool(self._wire.least("is on disk", self._own.is_stored(prefix)))

    def spill(self, prefixes: PrefixCache) -> float | None:
        self._compare(prefixes.digest)
        pause_s = self._own.spill(prefixes)
        pause_ms = _NEVER_MS if pause_s is None else math.ceil(pause_s * 1000)
        shortest_ms = self._wire.least("pause of writing", pause_ms)
        return None if shortest_ms == _NEVER_MS else shortest_ms / 1000

    def close(self) -> None:
        self._own.close()
        self._wire.wait_closed()

    def _compare(self, own: int) -> None:
        """A prefix that one rank alone has would change what the next prompt finds."""
        if (decided := self._wire.decide("prefixes", lambda: own)) != own:
            self._leave(DIVERGED, f"ranks have different prefixes in memory: {decided} and {own}")


def _next_of(pinned: Iterator[Sequence[int]]) -> list[int]:
    """Return the next one; empty after the last, or if it cannot be read."""
    try:
        return list(next(pinned, ()))
    except OSError as error:
        _log.warning("reading the prefixes on disk failed, none is preloaded: %s", error)
        return []


class SharedRestore:
    """Reads until the slowest rank is done; the hit is what all could read."""

    def __init__(self, wire: Wire, own: Restore) -> None:
        self._wire = wire
        self._own = own
        self.hit: Hit | None = None
        self.is_done = False
        self._finish_if_read()

    def step(self) -> None:
        if not self._own.is_done:
            self._own.step()
        self._finish_if_read()

    def _finish_if_read(self) -> None:
        if self._wire.least("is read", self._own.is_done):
            self.hit, self.is_done = self._agreed(self._own.hit), True

    def _agreed(self, own: Hit | None) -> Hit | None:
        tokens = self._wire.least("read tokens", own.cached_tokens if own else 0)
        if own is None or not tokens:
            return None
        usable = own.state.usable_tokens(tokens)
        # Layers that cannot be cut anywhere are equally long on all ranks, or useless.
        if self._wire.least("usable tokens", usable) < tokens:
            return None
        return own if own.cached_tokens == tokens else Hit(own.state.copy(tokens), tokens)
