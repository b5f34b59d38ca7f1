"""KV caches of earlier sequences in memory, found by their longest common prefix. Pure: it does not
know what a KV cache is.

Tokens are hashed in blocks of `BLOCK_TOKENS`, each hash over the previous one, so one table look-up
shows that a whole prefix is equal; inside the last block tokens are compared one by one. A cache is
*moved* out when a conversation continues from it, and copied only when a request branches off
early: a move costs no memory and no time.

Eviction takes spare prefixes first, which no request has used; then the least recently used of side
requests; then it trims conversations to their pinned prefix (system prompt and tools); then it
takes pinned prefixes. Invariant, asserted by `check`: the byte count is the sum over the entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Protocol
from zlib import crc32

BLOCK_TOKENS = 256
# A shorter remainder after a branch is not worth a copy.
_BRANCH_TOKENS = BLOCK_TOKENS
# Shorter prompts are cheaper to process again than to keep.
MIN_TOKENS = 16


class KVState(Protocol):
    """The KV caches of one sequence, all layers (engine/model/kv_state.py)."""

    @property
    def nbytes(self) -> int: ...

    def usable_tokens(self, tokens: int) -> int:
        """Return the longest prefix of at most `tokens` that `trim` and `copy` can make."""
        ...

    def trim(self, tokens: int) -> None: ...

    def copy(self, tokens: int) -> KVState: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """KV caches of the first `cached_tokens` of the tokens looked up; the caller owns them."""

    state: KVState
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """An entry, for reading only."""

    tokens: array[int]
    hashes: list[bytes]
    state: KVState
    pinned_tokens: int  # that other conversations share; 0 for side requests


@dataclass(slots=True, eq=False)
class _Entry:
    tokens: array[int]
    hashes: list[bytes]
    state: KVState
    pinned_tokens: int  # the prefix that is evicted last
    is_side: bool
    is_spare: bool = False
    used: int = 0  # by the cache's clock
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = self.state.nbytes

    def snapshot(self) -> CachedPrefix:
        pinned_tokens = 0 if self.is_side else self.pinned_tokens
        return CachedPrefix(self.tokens, self.hashes, self.state, pinned_tokens)


class PrefixCache:
    """Owns the cached sequences and their byte count."""

    def __init__(self, fingerprint: bytes) -> None:
        # fingerprint: of all that makes KV caches interchangeable (model, precision, layout).
        self._root = blake2b(fingerprint, digest_size=16).digest()
        self._by_hash: dict[bytes, set[_Entry]] = {}
        self._entries: set[_Entry] = set()
        self._clock = count(1)
        self.nbytes = 0
        self.version = 0  # grows with every insertion but those of spare prefixes

    def __len__(self) -> int:
        return len(self._entries)

    def hashes(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the chained hashes of the whole blocks; they also name the blocks on disk."""
        return list(_chain(self._root, array("i", tokens)))

    def match(self, tokens: Sequence[int]) -> int:
        """Return how many tokens `acquire` would give."""
        best = self._best(tokens)
        return best[1] if best else 0

    def acquire(self, tokens: Sequence[int]) -> Hit | None:
        """Move or copy out the longest cached prefix, at most all tokens but the last."""
        best = self._best(tokens)
        return self._hand_out(*best) if best else None

    def _best(self, tokens: Sequence[int]) -> tuple[_Entry, int] | None:
        """Return the entry to continue from and how many of its tokens are usable.

        Entries that share more blocks come first. One that cannot be trimmed anywhere may have
        fewer usable tokens than another that shares less.
        """
        query = array("i", tokens)
        best: list[tuple[_Entry, int]] = []
        for blocks, entries in self._by_shared_blocks(query):
            if best and best[0][1] >= (blocks + 1) * BLOCK_TOKENS:
                break  # these share fewer tokens than are usable already
            best += [(entry, _usable_tokens(entry, query)) for entry in entries]
            best = sorted(best, key=_preference)[:1]
        return best[0] if best and best[0][1] >= MIN_TOKENS else None

    def insert(
        self,
        tokens: Sequence[int],
        state: KVState,
        *,
        pinned_tokens: int = 0,
        is_side: bool = False,
    ) -> None:
        """Add a sequence and remove those that are prefixes of it."""
        if len(tokens) < MIN_TOKENS:
            return
        inserted = array("i", tokens)
        entry = _Entry(inserted, self.hashes(tokens), state, pinned_tokens, is_side)
        _, sharing_most = next(self._by_shared_blocks(inserted), (0, set[_Entry]()))
        for other in sharing_most:
            length = len(other.tokens)
            if length <= len(inserted) and inserted[:length] == other.tokens:
                entry.pinned_tokens = max(entry.pinned_tokens, other.pinned_tokens)
                self._drop(other)
        self._add(entry)

    def insert_spare(self, tokens: Sequence[int], state: KVState) -> None:
        """Add a pinned prefix from disk that no request has used: all others are evicted later."""
        inserted = array("i", tokens)
        entry = _Entry(
            inserted, self.hashes(tokens), state, len(inserted), is_side=False, is_spare=True
        )
        self._add(entry, used=min((other.used for other in self._entries), default=0) - 1)

    def evict(self, nbytes: int) -> int:
        """Evict until `nbytes` are freed or the cache is empty; return the bytes freed."""
        before = self.nbytes
        while self._entries and before - self.nbytes < nbytes:
            self._evict_entry(min(self._entries, key=_retention))
        return before - self.nbytes

    def remove_if(self, is_expendable: Callable[[CachedPrefix], bool]) -> None:
        """Drop matching sequences whole, their pinned prefixes included; the newest first."""
        for entry in self._newest_first():
            if is_expendable(entry.snapshot()):
                self._drop(entry)

    def clear(self) -> None:
        self.remove_if(lambda _: True)

    def sequences(self) -> Iterator[CachedPrefix]:
        """Yield all entries, most recently used first."""
        for entry in self._newest_first():
            yield entry.snapshot()

    def _newest_first(self) -> list[_Entry]:
        return sorted(self._entries, key=lambda entry: -entry.used)

    @property
    def digest(self) -> int:
        """A checksum of which prefixes are cached and which was used when.

        It is the same on all ranks of a model.
        """
        entries = sorted(
            (entry.used, len(entry.tokens), entry.tokens[-1], entry.pinned_tokens)
            for entry in self._entries
        )
        return crc32(repr(entries).encode())

    def check(self) -> None:
        """Assert the invariants."""
        assert self.nbytes == sum(entry.nbytes for entry in self._entries)
        assert all(entry.nbytes == entry.state.nbytes for entry in self._entries)
        assert set().union(*self._by_hash.values()) == self._entries
        assert all(self._by_hash.values())

    def _by_shared_blocks(self, tokens: array[int]) -> Iterator[tuple[int, set[_Entry]]]:
        """Yield numbers of whole blocks, descending, and the entries that share just as many."""
        seen: set[_Entry] = set()
        hashes = [self._root, *_chain(self._root, tokens)]
        for blocks, block_hash in reversed(list(enumerate(hashes))):
            if entries := self._by_hash.get(block_hash, set()) - seen:
                yield blocks, entries
                seen |= entries

    def _hand_out(self, entry: _Entry, tokens: int) -> Hit:
        entry.used = next(self._clock)
        if len(entry.tokens) - tokens >= _BRANCH_TOKENS:
            return Hit(entry.state.copy(tokens), tokens)
        self._drop(entry)
        entry.state.trim(tokens)
        return Hit(entry.state, tokens)

    def _evict_entry(self, entry: _Entry) -> None:
        """Drop an entry; of a conversation keep the pinned prefix."""
        self._drop(entry)
        pinned = entry.state.usable_tokens(entry.pinned_tokens)
        if MIN_TOKENS <= pinned < len(entry.tokens):
            state = entry.state.copy(pinned)
            tokens = entry.tokens[:pinned]
            hashes = entry.hashes[: pinned // BLOCK_TOKENS]
            self._add(_Entry(tokens, hashes, state, pinned, is_side=False), used=entry.used)

    def _add(self, entry: _Entry, used: int | None = None) -> None:
        entry.used = next(self._clock) if used is None else used
        self._entries.add(entry)
        self.nbytes += entry.nbytes
        self.version += not entry.is_spare
        for block_hash in (self._root, *entry.hashes):
            self._by_hash.setdefault(block_hash, set()).add(entry)

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self.nbytes -= entry.nbytes
        for block_hash in (self._root, *entry.hashes):
            sharers = self._by_hash[block_hash]
            sharers.remove(entry)
            if not sharers:
                del self._by_hash[block_hash]


def _usable_tokens(entry: _Entry, query: array[int]) -> int:
    common = min(common_prefix_length(entry.tokens, query), len(query) - 1)
    return entry.state.usable_tokens(common)


def _preference(match: tuple[_Entry, int]) -> tuple[int, int, array[int], int]:
    # Smaller is better: the longest prefix, then the entry that loses the least when moved. Sets
    # have no order, so ties are broken by content, then by age.
    entry, usable = match
    return (-usable, len(entry.tokens), entry.tokens, entry.used)


def _retention(entry: _Entry) -> tuple[bool, bool, bool, int]:
    # The smallest is evicted first: spare prefixes, then side requests, then conversations, then
    # bare pinned prefixes; the oldest of each.
    is_bare_prefix = 0 < entry.pinned_tokens == len(entry.tokens)
    return (not entry.is_spare, not entry.is_side, is_bare_prefix, entry.used)


def _chain(root: bytes, tokens: array[int]) -> Iterator[bytes]:
    block_hash = root
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = tokens[start : start + BLOCK_TOKENS].tobytes()
        block_hash = blake2b(block_hash + block, digest_size=16).digest()
        yield block_hash


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    low, high = 0, min(len(left), len(right)) + 1  # the first difference lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
