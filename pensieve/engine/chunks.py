"""How many prompt tokens are processed at once, from how long the last ones took and what fits. Plain arithmetic; others tell the time.

Alone, chunks are as large as memory likes. While others decode, a chunk takes about `SHARED_CHUNK_S`, and decode steps
go between chunks until decoding has had its share of the time: nobody's answer stands still for a long prompt.
"""

import math
from dataclasses import dataclass

SHARED_CHUNK_S = 0.25
DECODE_SHARE = 0.3
_LEAST_CHUNK = 16
_NEWEST_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class ScoresRoom:
    """nbytes: for the attention scores of one chunk. pair_bytes: of one of its tokens with one token that it looks at; 0 where
    scores are never in memory.
    """

    nbytes: int = 0
    pair_bytes: int = 0

    def most_tokens(self, before: int) -> int | None:
        """Of a chunk behind so many tokens; None: any number."""
        if not self.pair_bytes:
            return None
        return (math.isqrt(before**2 + 4 * self.nbytes // self.pair_bytes) - before) // 2


@dataclass(slots=True)
class ChunkSizer:
    """Owned by a worker, kept over its batches. largest_chunk: prompt tokens of a chunk when nobody decodes.

    scores: what bounds a chunk behind a long prompt.
    """

    largest_chunk: int
    scores: ScoresRoom = ScoresRoom()
    _token_s: float = 0.0
    _step_s: float = 0.0
    _owed_s: float = 0.0

    @property
    def owed_s(self) -> float:
        """Seconds that decoding has coming before anything else may hold it up again; 0 or less where it has had its share."""
        return self._owed_s

    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        """Prompt tokens of the next chunk, behind so many; 0 where it is decoding's turn."""
        if is_shared and self._owed_s > 0:
            return 0
        most = self.scores.most_tokens(before)
        largest = self.largest_chunk if most is None else min(most, self.largest_chunk)
        return max(_LEAST_CHUNK, min(self._in_time(), largest) if is_shared else largest)

    def _in_time(self) -> int:
        """What takes as long as a chunk may while others decode."""
        if not self._token_s:
            return _LEAST_CHUNK
        return int(SHARED_CHUNK_S / self._token_s) // _LEAST_CHUNK * _LEAST_CHUNK

    def note_decode(self, spent_s: float) -> None:
        """A step that only decoded took so long."""
        self._step_s = _blended(self._step_s, spent_s)
        self._owed_s -= spent_s

    def note_chunk(self, tokens: int, spent_s: float, *, is_shared: bool) -> None:
        """A step that processed so many prompt tokens, and decoded where anyone did, took so long."""
        processing_s = max(spent_s - self._step_s, spent_s / 2) if is_shared else spent_s
        self._token_s = _blended(self._token_s, processing_s / tokens)
        self.note_other(processing_s if is_shared else 0.0)

    def note_other(self, spent_s: float) -> None:
        """What is no decoding took so long."""
        self._owed_s = spent_s * DECODE_SHARE / (1 - DECODE_SHARE)


def _blended(old: float, new: float) -> float:
    return new if not old else (1 - _NEWEST_WEIGHT) * old + _NEWEST_WEIGHT * new
