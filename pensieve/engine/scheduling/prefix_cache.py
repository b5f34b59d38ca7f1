"""KV caches of prompts gone by, found again by their longest common prefix. Pure: what a KV cache is, it does not know.

Tokens are hashed in blocks of `BLOCK_TOKENS`, each hash over the one before it, so one look-up in a table tells that a
whole prefix is equal; inside the last block tokens are compared one by one. A cache is *moved* out when a conversation
goes on from it, and copied only where it branches off early: a move costs no memory and no time.

Under pressure the least recently used goes first, in this order: side requests, conversations cut back to their pinned
prefix (system prompt and tools), then pinned prefixes. Invariant, asserted by `check`: the byte count is the sum.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Protocol

from pensieve.engine.scheduling.request_queue import common_prefix_length

BLOCK_TOKENS = 256
# What a branch leaves behind must be worth a copy.
_BRANCH_TOKENS = BLOCK_TOKENS
# Shorter prompts are processed faster than they are kept.
_MIN_TOKENS = 16


class KVState(Protocol):
    """The KV caches of one sequence, all layers (engine/model/kv_state.py)."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def usable_tokens(self, tokens: int) -> int:
        """The longest prefix of at most `tokens` that it can be cut back to."""
        ...

    def trim(self, tokens: int) -> None:
        """Cut it back to a usable prefix."""
        ...

    def copy(self, tokens: int) -> KVState:
        """A usable prefix in memory of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A sequence's KV caches, now the caller's: they hold the first `cached_tokens` of what was looked up."""

    state: KVState
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """A kept sequence as others may look at it."""

    tokens: array[int]
    hashes: list[bytes]
    state: KVState


@dataclass(slots=True, eq=False)
class _Entry:
    """A sequence at rest. `pinned_tokens`: the prefix that is kept longer than the rest."""

    tokens: array[int]
    hashes: list[bytes]
    state: KVState
    pinned_tokens: int
    is_side: bool
    used: int = 0
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = self.state.nbytes


class PrefixCache:
    """Owns the sequences at rest and their bytes."""

    def __init__(self, fingerprint: bytes) -> None:
        """fingerprint: of all that must be equal for KV caches to be interchangeable (model, precision, layout)."""
        self._root = blake2b(fingerprint, digest_size=16).digest()
        self._by_hash: dict[bytes, set[_Entry]] = {}
        self._entries: set[_Entry] = set()
        self._clock = count(1)
        self.nbytes = 0
        # Grows whenever a sequence comes in.
        self.version = 0

    def __len__(self) -> int:
        return len(self._entries)

    def hashes(self, tokens: Sequence[int]) -> list[bytes]:
        """The chained hashes of the whole blocks of `tokens`; also the names of the blocks on disk."""
        return list(_chain(self._root, array("i", tokens)))

    def match(self, tokens: Sequence[int]) -> int:
        """How many tokens `take` would find."""
        best = self._best(tokens)
        return best[1] if best else 0

    def acquire(self, tokens: Sequence[int]) -> Hit | None:
        """The longest kept prefix of `tokens`, at least one token short of all, to be continued by the caller."""
        best = self._best(tokens)
        return self._hand_over(*best) if best else None

    def _best(self, tokens: Sequence[int]) -> tuple[_Entry, int] | None:
        """The entry to go on from, and how many of its tokens are usable."""
        asked = array("i", tokens)
        found = [(entry, _usable_tokens(entry, asked)) for entry in self._candidates(asked)]
        worth_it = [match for match in found if match[1] >= _MIN_TOKENS]
        return min(worth_it, key=_preference, default=None)

    def insert(
        self,
        tokens: Sequence[int],
        state: KVState,
        *,
        pinned_tokens: int = 0,
        is_side: bool = False,
    ) -> None:
        """Take a sequence in; shorter ones that it begins with are no longer needed."""
        if len(tokens) < _MIN_TOKENS:
            return
        kept = array("i", tokens)
        entry = _Entry(kept, self.hashes(tokens), state, pinned_tokens, is_side)
        for other in list(self._candidates(kept)):
            if len(other.tokens) <= len(kept) and kept[: len(other.tokens)] == other.tokens:
                entry.pinned_tokens = max(entry.pinned_tokens, other.pinned_tokens)
                self._drop(other)
        self._add(entry)

    def evict(self, nbytes: int) -> int:
        """Give up sequences until `nbytes` are freed or nothing is left; how many were freed."""
        before = self.nbytes
        while self._entries and before - self.nbytes < nbytes:
            self._give_up(min(self._entries, key=_worth))
        return before - self.nbytes

    def remove_if(self, is_expendable: Callable[[CachedPrefix], bool]) -> None:
        """Give up every sequence that is; nothing of it is copied."""
        for entry in list(self._entries):
            if is_expendable(CachedPrefix(entry.tokens, entry.hashes, entry.state)):
                self._drop(entry)

    def clear(self) -> None:
        """Give up everything."""
        self.remove_if(lambda _: True)

    def sequences(self) -> Iterator[CachedPrefix]:
        """All kept sequences, most recently used first."""
        for entry in sorted(self._entries, key=lambda entry: -entry.used):
            yield CachedPrefix(entry.tokens, entry.hashes, entry.state)

    def check(self) -> None:
        """Assert the invariants."""
        assert self.nbytes == sum(entry.nbytes for entry in self._entries)
        assert all(entry.nbytes == entry.state.nbytes for entry in self._entries)
        assert set().union(*self._by_hash.values()) == self._entries
        assert all(self._by_hash.values())

    def _candidates(self, tokens: array[int]) -> set[_Entry]:
        """Entries that share the most whole blocks with `tokens`."""
        hashes = [self._root, *_chain(self._root, tokens)]
        for block_hash in reversed(hashes):
            if found := self._by_hash.get(block_hash):
                return set(found)
        return set()

    def _hand_over(self, entry: _Entry, tokens: int) -> Hit:
        entry.used = next(self._clock)
        if len(entry.tokens) - tokens >= _BRANCH_TOKENS:
            return Hit(entry.state.copy(tokens), tokens)
        self._drop(entry)
        entry.state.trim(tokens)
        return Hit(entry.state, tokens)

    def _give_up(self, entry: _Entry) -> None:
        """A conversation is first cut back to its pinned prefix."""
        self._drop(entry)
        pinned = entry.state.usable_tokens(entry.pinned_tokens)
        if _MIN_TOKENS <= pinned < len(entry.tokens):
            state = entry.state.copy(pinned)
            tokens = entry.tokens[:pinned]
            hashes = entry.hashes[: pinned // BLOCK_TOKENS]
            self._add(_Entry(tokens, hashes, state, pinned, is_side=False), used=entry.used)

    def _add(self, entry: _Entry, used: int | None = None) -> None:
        entry.used = next(self._clock) if used is None else used
        self._entries.add(entry)
        self.nbytes += entry.nbytes
        self.version += 1
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


def _usable_tokens(entry: _Entry, asked: array[int]) -> int:
    common = min(common_prefix_length(entry.tokens, asked), len(asked) - 1)
    return entry.state.usable_tokens(common)


def _preference(match: tuple[_Entry, int]) -> tuple[int, int, array[int], int]:
    """Smaller is better: the longest prefix; then what loses the least where it is moved. A set has
    no order, so what is left to tell entries apart is their content, and where that is equal, age.
    """
    entry, usable = match
    return (-usable, len(entry.tokens), entry.tokens, entry.used)


def _worth(entry: _Entry) -> tuple[bool, bool, int]:
    """What is least goes first: side requests, then conversations, then bare pinned prefixes; the oldest of each."""
    is_bare_prefix = 0 < entry.pinned_tokens == len(entry.tokens)
    return (not entry.is_side, is_bare_prefix, entry.used)


def _chain(root: bytes, tokens: array[int]) -> Iterator[bytes]:
    block_hash = root
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        block = tokens[start : start + BLOCK_TOKENS].tobytes()
        block_hash = blake2b(block_hash + block, digest_size=16).digest()
        yield block_hash
