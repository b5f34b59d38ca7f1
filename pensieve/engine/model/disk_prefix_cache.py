# pyright: basic
"""The disk tier of the prefix cache: which blocks a sequence is stored as, and how to restore it.

A sequence is stored as whole blocks of `BLOCK_TOKENS`, named by the prefix cache's chained hashes,
and one shorter tail up to its last token. Each name also contains the hash of the block before it,
so that the file in which a prompt diverges from a stored sequence is found and trimmed: a restored
prefix is exact to the token. Untrimmable layers (sliding windows, state spaces) are stored with the
tail in their final state, and only whole tails restore them. The pinned prefix of a conversation
has a tail of its own, also if the conversation continues in the same block: it ends what other
conversations share, and names what a new worker brings back before the first request.

Runs on the engine's thread, one block at a time: writes while the engine is idle, reads one per
step. The store's own thread writes the files.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.disk.block_file import Block, DamagedBlockError, decode, encode, tokens_of
from pensieve.engine.disk.block_store import BlockStore, PendingWrite
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.kv_layers import (
    is_trimmable,
    layer_arrays,
    layer_state,
    to_stored,
)
from pensieve.engine.model.kv_layout import KVLayout
from pensieve.engine.model.kv_restorer import KVRestorer
from pensieve.engine.model.kv_state import SequenceKVState
from pensieve.engine.scheduling.prefix_cache import (
    BLOCK_TOKENS,
    CachedPrefix,
    Hit,
    PrefixCache,
    common_prefix_length,
)
from pensieve.engine.scheduling.prefix_parts import (
    PINNED_TAIL,
    TAIL,
    Part,
    block_name,
    blocks_of,
    hash_of,
    is_pinned_tail,
    is_tail,
    parent_of,
    tail_of,
)

_log = logging.getLogger("pensieve.engine")

# Shorter prefixes are faster to process again than to read.
MIN_TOKENS = 256
# Enough bytes of a tail's file to contain its header.
_HEADER_BYTES = 1 << 17
# Of the followers of one block, only the newest are compared: each is read once for its tokens.
_MAX_FOLLOWERS = 64
# Seconds until `spill` is called again: the write queue is full; the last files are being written;
# the disk is full or the daily quota is used up.
QUEUE_FULL_S = 0.05
SETTLING_S = 0.5
PAUSED_S = 10.0


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The files of the longest restorable prefix: whole blocks, then part of one more file."""

    blocks: int
    last: str | None  # the file after the whole blocks
    tokens: int  # in all

    def names(self, hashes: Sequence[bytes]) -> list[str]:
        """Return the files in order; `hashes` are those of the planned tokens."""
        last = [] if self.last is None else [self.last]
        return [*(block_name(hashes, index) for index in range(self.blocks)), *last]


class DiskPrefixCache:
    """Implements `tiered_prefix_cache.DiskTier` over a `BlockStore`, which it closes."""

    def __init__(self, store: BlockStore, make_caches: CacheMaker, fingerprint: bytes) -> None:
        self._store = store
        self._make_caches = make_caches
        self._fingerprint = fingerprint
        self._spilled_version = 0
        # Files are enqueued once, even if the cap has evicted them since: with more in memory than
        # the cap allows, writing would never end.
        self._enqueued: set[str] = set()
        self._is_trimmable = all(is_trimmable(cache) for cache in make_caches())
        # Files by the hash of the block before them, the newest last; their tokens are read on
        # first use.
        self._followers: dict[str, dict[str, array | None]] = {}
        for name in store.names():
            self._followers.setdefault(parent_of(name), {})[name] = None

    def close(self) -> None:
        """Wait for the writer to finish its queue, within the store's timeout."""
        self._store.close()

    # Disk to memory

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        """Return how many of the first tokens can be restored."""
        return self.plan(hashes, tokens).tokens

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> DiskRestore:
        """Return the restore of the longest readable prefix of `tokens`."""
        return DiskRestore(self, hashes, tokens, is_use=is_use)

    def pinned(self) -> Iterator[Sequence[int]]:
        """Yield the pinned prefixes, most recently used first.

        The tokens match no file where one before the tail is missing or damaged.
        """
        tails = [name for name in self._store.names() if is_pinned_tail(name)]
        for tail in reversed(tails):
            yield self._tokens_through(tail)

    def _tokens_through(self, tail: str) -> list[int]:
        """Return the tokens of a tail and of all blocks before it, from their files' heads."""
        names = {hash_of(name): name for siblings in self._followers.values() for name in siblings}
        chain = [tail]
        # Files that another program named may form a circle.
        while len(chain) <= len(names) and (before := names.get(parent_of(chain[-1]))):
            chain.append(before)
        return [token for name in reversed(chain) for token in self._tokens_of(name)]

    def plan(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> RestorePlan:
        """Find the longest restorable prefix that leaves at least one token to process."""
        max_tokens = len(tokens) - 1
        found = 0
        while found < len(hashes) and self._store.has(block_name(hashes, found)):
            found += 1
        if self._is_trimmable:
            return self._plan_after(hashes, tokens, found, max_tokens)
        for blocks in range(found, -1, -1):
            plan = self._plan_after(hashes, tokens, blocks, max_tokens)
            if plan.last is not None:
                return plan
        return RestorePlan(0, None, 0)

    def _plan_after(
        self, hashes: Sequence[bytes], tokens: Sequence[int], blocks: int, max_tokens: int
    ) -> RestorePlan:
        start = blocks * BLOCK_TOKENS
        parent = hashes[blocks - 1].hex() if blocks else ""
        rest = array("i", tokens[start : start + BLOCK_TOKENS])
        best: tuple[int, int, str] | None = None
        for name in list(self._followers.get(parent, {}))[-_MAX_FOLLOWERS:]:
            stored = self._tokens_of(name)
            usable = min(common_prefix_length(stored, rest), max_tokens - start)
            if not self._is_trimmable and (usable < len(stored) or not is_tail(name)):
                continue
            # Of several with the same usable length, the shortest file is read fastest.
            candidate = (usable, -len(stored), name)
            if usable > 0 and (best is None or candidate > best):
                best = candidate
        if best:
            return RestorePlan(blocks, best[2], start + best[0])
        return RestorePlan(blocks, None, min(start, max_tokens) if self._is_trimmable else 0)

    @cached_property
    def _layout(self) -> KVLayout:
        """Computed on first use: it runs the model on a prompt of three tokens."""
        return KVLayout.of(self._make_caches)

    def make_restorer(self, tokens: int) -> KVRestorer:
        return KVRestorer(self._make_caches(), self._layout, tokens)

    def read(self, name: str, tokens: int) -> Block:
        """Read and decode one file of a sequence of `tokens` tokens. Raises `DamagedBlockError`."""
        content = self._store.read(name, self._layout.max_file_bytes(tokens))
        if content is None:
            raise DamagedBlockError("the file is missing")
        return decode(content, self._fingerprint)

    def mark_used(self, name: str) -> None:
        """Have the store evict the file later than all others, and prompts compare it first."""
        self._store.mark_used(name)
        siblings = self._followers.get(parent_of(name), {})
        if name in siblings:
            siblings[name] = siblings.pop(name)

    # Memory to disk

    @property
    def is_storing(self) -> bool:
        """Whether what is only in memory will be written soon."""
        return self._store.is_writing

    def is_stored(self, prefix: CachedPrefix) -> bool:
        """Whether all files of the prefix exist, so that memory may evict it without loss."""
        return all(self._store.has(part.name) for part in self._parts(prefix))

    def spill(self, prefixes: PrefixCache) -> float | None:
        """Enqueue one missing file of the sequences in memory for writing.

        Returns the seconds until the next call; None if everything is written.
        """
        if prefixes.version == self._spilled_version:
            return None if self._store.is_idle else SETTLING_S
        if not self._store.is_writing:
            return PAUSED_S
        for sequence in prefixes.sequences():
            for part in self._parts(sequence):
                if part.name not in self._enqueued and not self._store.has(part.name):
                    return 0 if self._write(part, sequence) else QUEUE_FULL_S
        self._spilled_version = prefixes.version
        if (newest := next(prefixes.sequences(), None)) is not None:
            self._mark_pinned_used(newest)
        return None

    def _mark_pinned_used(self, sequence: CachedPrefix) -> None:
        """Keep the pinned prefix on disk: the requests that continue from memory do not read it."""
        if sequence.pinned_tokens < MIN_TOKENS:
            return
        tail = tail_of(sequence, sequence.pinned_tokens, PINNED_TAIL)
        for part in (*blocks_of(sequence, tail.start // BLOCK_TOKENS), tail):
            self.mark_used(part.name)

    def _parts(self, sequence: CachedPrefix) -> Iterator[Part]:
        """Yield the files that a sequence is stored as."""
        length, pinned = len(sequence.tokens), sequence.pinned_tokens
        if length < MIN_TOKENS:
            return
        yield from blocks_of(sequence, len(sequence.hashes))
        if pinned >= MIN_TOKENS and self._can_end(sequence, pinned):
            yield tail_of(sequence, pinned, PINNED_TAIL)
        if length % BLOCK_TOKENS and length != pinned:
            yield tail_of(sequence, length, TAIL)

    def _can_end(self, sequence: CachedPrefix, end: int) -> bool:
        """Whether the state of untrimmable layers is known after `end` tokens."""
        checkpoints = sequence.state.checkpoints  # type: ignore[attr-defined]
        return self._is_trimmable or end == len(sequence.tokens) or end in checkpoints

    def _write(self, part: Part, sequence: CachedPrefix) -> bool:
        block = self._block(part, sequence)
        write = PendingWrite(block.nbytes, partial(encode, block, self._fingerprint))
        if write.nbytes > self._store.limits.cap_bytes:
            self._enqueued.add(part.name)
            return True
        if not self._store.enqueue(part.name, write):
            return False
        self._enqueued.add(part.name)
        tokens = sequence.tokens[part.start : part.end]
        siblings = self._followers.setdefault(part.parent, {})
        # The new file contains the earlier state of a conversation that has continued.
        for name, earlier in list(siblings.items()):
            is_continued = earlier is not None and tokens[: len(earlier)] == earlier
            if is_continued and not is_pinned_tail(name):
                self.delete(name)
        siblings[part.name] = tokens
        return True

    def _block(self, part: Part, sequence: CachedPrefix) -> Block:
        start, end = part.start, part.end
        outline: list[Any] = []
        arrays: list[mx.array] = []
        state: Any = sequence.state
        for layer, cache in enumerate(state.caches):
            if is_trimmable(cache):
                new = layer_arrays(cache, start, end)
                outline.append(list(range(len(arrays), len(arrays) + len(new))))
                arrays += new
            elif part.is_tail:
                outline.append(layer_state(state.layer_at(layer, end), arrays))
            else:
                outline.append(None)
        arrays = [mx.contiguous(piece) for piece in arrays]
        mx.eval(arrays)
        return Block(tuple(sequence.tokens[start:end]), outline, tuple(map(to_stored, arrays)))

    # Files by the block before them

    def _tokens_of(self, name: str) -> array:
        """Return the file's tokens; empty if it is missing or damaged."""
        siblings = self._followers[parent_of(name)]
        tokens = siblings[name]
        if tokens is None:
            tokens = array("i", tokens_of(self._store.head(name, _HEADER_BYTES) or b""))
            siblings[name] = tokens
        return tokens

    def delete(self, name: str) -> None:
        self._store.delete(name)
        self._enqueued.discard(name)
        self._followers.get(parent_of(name), {}).pop(name, None)


class DiskRestore:
    """Implements `restore.Restore`: reads one file per step.

    A damaged file is deleted, and a shorter prefix is tried.
    """

    def __init__(
        self,
        cache: DiskPrefixCache,
        hashes: Sequence[bytes],
        tokens: Sequence[int],
        *,
        is_use: bool,
    ) -> None:
        self._cache = cache
        self._hashes = hashes
        self._tokens = tokens
        self._is_use = is_use
        self.hit: Hit | None = None
        self._begin()

    @property
    def is_done(self) -> bool:
        return not self._unread

    def step(self) -> None:
        start, name = self._unread[0]
        try:
            self._read(start, name)
            if len(self._unread) == 1:
                self._finish()
        except DamagedBlockError as error:
            _log.warning(
                "cached prefix on disk is damaged and was deleted, processing its tokens again: %s",
                error,
            )
            self._cache.delete(name)
            self._begin()
        else:
            self._unread.popleft()

    def _begin(self) -> None:
        """Begin with the longest prefix whose files are not known to be damaged."""
        self._plan = self._cache.plan(self._hashes, self._tokens)
        self._restorer = self._cache.make_restorer(len(self._tokens))
        names = self._plan.names(self._hashes)
        self._unread = deque((at * BLOCK_TOKENS, name) for at, name in enumerate(names))

    def _read(self, start: int, name: str) -> None:
        end = min(start + BLOCK_TOKENS, self._plan.tokens)
        block = self._cache.read(name, len(self._tokens))
        if list(block.tokens[: end - start]) != list(self._tokens[start:end]):
            raise DamagedBlockError("it holds other tokens")
        self._restorer.add(block, start, end, is_tail=is_tail(name))
        if self._is_use:
            self._cache.mark_used(name)

    def _finish(self) -> None:
        tokens = self._plan.tokens
        self.hit = Hit(SequenceKVState(self._restorer.caches(tokens), tokens), tokens)
