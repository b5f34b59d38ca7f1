"""Names the files that a sequence is stored as. Pure.

Each name has two parts: the hash of the block before, then the block's own hash or a tail's mark
and digest. So the files that continue a block are found, and the blocks before one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, CachedPrefix

# Marks, which no hash begins with: the last tokens of a sequence, and of a pinned prefix.
TAIL = "t"
PINNED_TAIL = "p"
_SUFFIX = ".kv"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a sequence: the tokens [start, end)."""

    name: str
    parent: str  # hash of the block before it
    start: int
    end: int

    @property
    def is_tail(self) -> bool:
        return is_tail(self.name)


def blocks_of(sequence: CachedPrefix, number: int) -> Iterator[Part]:
    """Yield the files of the first whole blocks."""
    for index in range(number):
        start = index * BLOCK_TOKENS
        name = block_name(sequence.hashes, index)
        yield Part(name, parent_of(name), start, start + BLOCK_TOKENS)


def tail_of(sequence: CachedPrefix, end: int, mark: str) -> Part:
    """Return the file of the last 1 to `BLOCK_TOKENS` tokens before `end`."""
    blocks = (end - 1) // BLOCK_TOKENS
    start = blocks * BLOCK_TOKENS
    digest = blake2b(sequence.tokens[start:end].tobytes(), digest_size=16).hexdigest()
    parent = _parent_hash(sequence.hashes, blocks)
    return Part(f"{parent}-{mark}{digest}{_SUFFIX}", parent, start, end)


def block_name(hashes: Sequence[bytes], index: int) -> str:
    return f"{_parent_hash(hashes, index)}-{hashes[index].hex()}{_SUFFIX}"


def _parent_hash(hashes: Sequence[bytes], index: int) -> str:
    return hashes[index - 1].hex() if index else ""


def parent_of(name: str) -> str:
    return name.partition("-")[0]


def hash_of(name: str) -> str:
    """Return a block's own hash, or a tail's mark and digest."""
    return name.partition("-")[2].removesuffix(_SUFFIX)


def is_tail(name: str) -> bool:
    return hash_of(name).startswith((TAIL, PINNED_TAIL))


def is_pinned_tail(name: str) -> bool:
    return hash_of(name).startswith(PINNED_TAIL)
