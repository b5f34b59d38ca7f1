# pyright: basic
"""KV caches to disk and back: which blocks a sequence is stored as, and how MLX's arrays become bytes.

A sequence is stored as whole blocks of `BLOCK_TOKENS`, named by the prefix cache's chained hashes, and one shorter tail up
to its last token. Each is named after what it follows, too, so the one in which a prompt leaves a stored sequence is found and cut:
a restored prefix is exact to the token. Layers that cannot be cut back (sliding windows, state spaces) are stored as they
stand with the tail, and only whole tails bring them back.

Runs on the engine's thread, a block at a time: to disk where the engine has nothing better to do, back one at each step. The
files are written by the store's own thread.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.disk.block_file import Block, DamagedBlockError, decode, encode, tokens_of
from pensieve.engine.disk.block_store import BlockStore, PendingWrite
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.kv_layers import (
    is_trimmable,
    layer_arrays,
    layer_state,
    stored,
)
from pensieve.engine.model.kv_layout import KVLayout
from pensieve.engine.model.kv_restorer import KVRestorer
from pensieve.engine.model.kv_state import SequenceKVState
from pensieve.engine.scheduling.backend import RestoreSteps
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, CachedPrefix, Hit, PrefixCache
from pensieve.engine.scheduling.request_queue import common_prefix_length

_log = logging.getLogger("pensieve.engine")

# What is shorter is processed again sooner than it is read.
MIN_TOKENS = 256
# Enough of a tail's file to hold its header.
_HEADER_BYTES = 1 << 17
_TAIL_SIGN = "t"
# Of what follows the same block, the newest are looked at: each is read once to know its tokens.
_MAX_FOLLOWERS = 64
# When to look again: the writer has its hands full; it has the last of them; the disk is full, or the day's budget spent.
QUEUE_FULL_S = 0.05
SETTLING_S = 0.5
PAUSED_S = 10.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What can be restored of a sequence: so many whole blocks, then `last`, of which so many tokens fit."""

    blocks: int
    last: str | None
    tokens: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One file of a sequence: the tokens [start, end), after the block with the hash `parent`."""

    name: str
    parent: str
    start: int
    end: int

    @property
    def is_tail(self) -> bool:
        return _is_tail(self.name)


class DiskPrefixCache:
    """Implements `backend.Archive` over a `BlockStore`, which it closes."""

    def __init__(self, store: BlockStore, make_caches: CacheMaker, fingerprint: bytes) -> None:
        self._store = store
        self._make_caches = make_caches
        self._fingerprint = fingerprint
        self._spilled_version = 0
        # What the cap has pushed out since is not written again: with more at rest than the cap holds, that would not end.
        self._offered: set[str] = set()
        self._is_cuttable = all(is_trimmable(cache) for cache in make_caches())
        # By the block that they follow, the newest last; their tokens are read when they are first asked for.
        self._followers: dict[str, dict[str, array | None]] = {}
        for name in store.names():
            self._followers.setdefault(_parent_of(name), {})[name] = None

    def close(self) -> None:
        """Let the writer finish what it has."""
        self._store.close()

    # Disk to memory

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        """How many first tokens could be restored."""
        return self._plan(hashes, tokens).tokens

    def restore(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> RestoreSteps:
        """The longest prefix of `tokens` that can be read back whole, read a file at a time; damaged ones are removed on the way."""
        while (plan := self._plan(hashes, tokens)).tokens:
            if hit := (yield from self._read_back(plan, hashes, tokens)):
                return hit
        return None

    def _plan(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> _Plan:
        """At least one token is left to process."""
        most = len(tokens) - 1
        held = 0
        while held < len(hashes) and self._store.has(_block_name(hashes, held)):
            held += 1
        if self._is_cuttable:
            return self._plan_after(hashes, tokens, held, most)
        for blocks in range(held, -1, -1):
            plan = self._plan_after(hashes, tokens, blocks, most)
            if plan.last is not None:
                return plan
        return _Plan(0, None, 0)

    def _plan_after(
        self, hashes: Sequence[bytes], tokens: Sequence[int], blocks: int, most: int
    ) -> _Plan:
        start = blocks * BLOCK_TOKENS
        parent = hashes[blocks - 1].hex() if blocks else ""
        rest = array("i", tokens[start : start + BLOCK_TOKENS])
        best: tuple[int, int, str] | None = None
        for name in list(self._followers.get(parent, {}))[-_MAX_FOLLOWERS:]:
            held = self._tokens_of(name)
            usable = min(common_prefix_length(held, rest), most - start)
            if not self._is_cuttable and (usable < len(held) or not _is_tail(name)):
                continue
            # Of several that hold as much, the shortest is read the fastest.
            found = (usable, -len(held), name)
            if usable and (best is None or found > best):
                best = found
        if best:
            return _Plan(blocks, best[2], start + best[0])
        return _Plan(blocks, None, min(start, most) if self._is_cuttable else 0)

    @cached_property
    def _layout(self) -> KVLayout:
        """Costs a prompt of three tokens, so not before something is read."""
        return KVLayout.of(self._make_caches)

    def _read(self, name: str, tokens: int) -> Block:
        """Return the block of a file of a sequence of `tokens`. Raises `DamagedBlockError`."""
        content = self._store.read(name, self._layout.max_file_bytes(tokens))
        if content is None:
            raise DamagedBlockError("it is gone")
        return decode(content, self._fingerprint)

    def _read_back(
        self, plan: _Plan, hashes: Sequence[bytes], tokens: Sequence[int]
    ) -> RestoreSteps:
        """None where a file is not what it was taken for; it is removed."""
        names = [_block_name(hashes, index) for index in range(plan.blocks)]
        if plan.last is not None:
            names.append(plan.last)
        filling = KVRestorer(self._make_caches(), self._layout, len(tokens))
        name = ""
        try:
            for index, name in enumerate(names):
                start = index * BLOCK_TOKENS
                end = min(start + BLOCK_TOKENS, plan.tokens)
                block = self._read(name, len(tokens))
                _require_tokens(block, tokens[start:end])
                filling.add(block, start, end, is_tail=_is_tail(name))
                yield
            caches = filling.caches(plan.tokens)
        except DamagedBlockError as error:
            _log.warning("stored prefix removed, its tokens are processed again: %s", error)
            self._forget(name)
            return None
        return Hit(SequenceKVState(caches, plan.tokens), plan.tokens)

    # Memory to disk

    @property
    def is_storing(self) -> bool:
        """Whether what is in memory alone will be written soon."""
        return self._store.is_writing

    def is_stored(self, sequence: CachedPrefix) -> bool:
        """Whether dropping it from memory loses nothing that is worth its file."""
        return all(self._store.has(part.name) for part in _parts(sequence))

    def spill(self, prefixes: PrefixCache) -> float | None:
        """Hand one missing block of what is at rest to the writer; seconds until the next look, None where all is written."""
        if prefixes.version == self._spilled_version:
            return None if self._store.is_idle else SETTLING_S
        if not self._store.is_writing:
            return PAUSED_S
        for sequence in prefixes.sequences():
            for part in _parts(sequence):
                if part.name not in self._offered and not self._store.has(part.name):
                    return 0 if self._write(part, sequence) else QUEUE_FULL_S
        self._spilled_version = prefixes.version
        return None

    def _write(self, part: _Part, sequence: CachedPrefix) -> bool:
        block = self._block(part, sequence)
        content = PendingWrite(block.nbytes, partial(encode, block, self._fingerprint))
        if content.nbytes > self._store.limits.cap_bytes:
            self._offered.add(part.name)
            return True
        if not self._store.enqueue(part.name, content):
            return False
        self._offered.add(part.name)
        tokens = sequence.tokens[part.start : part.end]
        siblings = self._followers.setdefault(part.parent, {})
        # What a conversation has gone on from is in the new file as well.
        for name, held in list(siblings.items()):
            if held is not None and tokens[: len(held)] == held:
                self._forget(name)
        siblings[part.name] = tokens
        return True

    def _block(self, part: _Part, sequence: CachedPrefix) -> Block:
        start, end = part.start, part.end
        outline: list[Any] = []
        arrays: list[mx.array] = []
        for cache in sequence.state.caches:  # type: ignore[attr-defined]
            if is_trimmable(cache):
                new = layer_arrays(cache, start, end)
                outline.append(list(range(len(arrays), len(arrays) + len(new))))
                arrays += new
            else:
                outline.append(layer_state(cache, arrays) if part.is_tail else None)
        arrays = [mx.contiguous(one) for one in arrays]
        mx.eval(arrays)
        return Block(tuple(sequence.tokens[start:end]), outline, tuple(map(stored, arrays)))

    # What follows what

    def _tokens_of(self, name: str) -> array:
        """Empty where the file is gone or damaged."""
        siblings = self._followers[_parent_of(name)]
        tokens = siblings[name]
        if tokens is None:
            tokens = array("i", tokens_of(self._store.head(name, _HEADER_BYTES) or b""))
            siblings[name] = tokens
        return tokens

    def _forget(self, name: str) -> None:
        self._store.delete(name)
        self._offered.discard(name)
        self._followers.get(_parent_of(name), {}).pop(name, None)


def _require_tokens(block: Block, tokens: Sequence[int]) -> None:
    if list(block.tokens[: len(tokens)]) != list(tokens):
        raise DamagedBlockError("it is of other tokens")


def _parts(sequence: CachedPrefix) -> Iterator[_Part]:
    """The files that a sequence is stored as."""
    if len(sequence.tokens) < MIN_TOKENS:
        return
    parent = ""
    for index, block_hash in enumerate(sequence.hashes):
        start = index * BLOCK_TOKENS
        name = _block_name(sequence.hashes, index)
        yield _Part(name, parent, start, start + BLOCK_TOKENS)
        parent = block_hash.hex()
    start = len(sequence.hashes) * BLOCK_TOKENS
    if start < len(sequence.tokens):
        digest = blake2b(sequence.tokens[start:].tobytes(), digest_size=16).hexdigest()
        name = f"{parent}-{_TAIL_SIGN}{digest}.kv"
        yield _Part(name, parent, start, len(sequence.tokens))


def _block_name(hashes: Sequence[bytes], index: int) -> str:
    parent = hashes[index - 1].hex() if index else ""
    return f"{parent}-{hashes[index].hex()}.kv"


def _parent_of(name: str) -> str:
    return name.partition("-")[0]


def _is_tail(name: str) -> bool:
    return name.partition("-")[2].startswith(_TAIL_SIGN)
