"""What prompts an engine was sent, as hashes of their blocks: tells how much of the next one it has
cached. Pure.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import takewhile

# Less than a block of the prefix cache, which is exact to the token.
BLOCK_TOKENS = 64
HASH_BYTES = 8
# A conversation of 100 000 tokens has 1600 blocks. About 15 MB.
MAX_BLOCKS = 100_000


def block_hashes(tokens: Sequence[int]) -> list[bytes]:
    """Return a hash for each whole block of these tokens and of all before it."""
    packed = array("i", tokens)
    digest = blake2b(digest_size=HASH_BYTES)
    hashes: list[bytes] = []
    for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
        digest.update(packed[end - BLOCK_TOKENS : end].tobytes())
        hashes.append(digest.digest())
    return hashes


class PrefixTable:
    """Owns the blocks sent to one engine; the least recently sent ones are forgotten first."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._blocks: OrderedDict[bytes, None] = OrderedDict()
        self._max_blocks = max_blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, hashes: Iterable[bytes]) -> int:
        """Return how many first tokens were sent before."""
        return BLOCK_TOKENS * sum(1 for _ in takewhile(self._blocks.__contains__, hashes))

    def add(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Return those that are new."""
        new = [each for each in hashes if each not in self._blocks]
        # A prompt's first blocks are forgotten last: without them the others match nothing.
        for each in reversed(hashes):
            self._blocks[each] = None
            self._blocks.move_to_end(each)
        self._forget_oldest()
        return new

    def _forget_oldest(self) -> None:
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)

    def discard(self, hashes: Iterable[bytes]) -> None:
        for each in hashes:
            self._blocks.pop(each, None)

    def dump(self) -> bytes:
        """Return all blocks, the least recently sent first."""
        return b"".join(self._blocks)

    def load(self, content: bytes) -> None:
        """Add what was dumped, as sent later than all others."""
        for start in range(0, len(content) - HASH_BYTES + 1, HASH_BYTES):
            block = content[start : start + HASH_BYTES]
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        self._forget_oldest()
