"""How many prompt tokens one chunk has: by measured time, by memory, and by what macOS lets one
command buffer do.

Plain arithmetic; callers measure the time. A chunk alone takes about `LONE_CHUNK_S`. While others
decode, a chunk takes about `SHARED_CHUNK_S`, and decode steps go between chunks until decoding has
had its share of the time: nobody's answer stands still for a long prompt.
"""

import math
from dataclasses import dataclass

SHARED_CHUNK_S = 0.25
DECODE_SHARE = 0.3
# Cancelling, `stop` and the screen wait for one chunk at most. A fast machine reaches its largest
# chunk in this time (2048 tokens at 585 a second); a slow one loses nothing, since 64 tokens occupy
# any GPU that is so slow.
LONE_CHUNK_S = 3.5
# Before anything is measured: 11 s for a dense 27B model on an M2 (46.7 tokens a second on an M2
# Pro, rapid's benchmarks, 2026), where 512 would take half of the watchdog's patience; 1 s for a
# model of 4B on an M1.
FIRST_CHUNK = 256
# A token after so many others takes at most twice as long as one after none: Qwen3-Coder-30B by its
# operations, 2 x 3.3e9 for its weights, 4 x 48 layers x 32 heads x 128 values for each token before
# it. Others need 14 000 to 140 000 tokens.
DOUBLING_TOKENS = 8192
# What a token takes on the slowest machine that one would wait for. Only patience with the first
# chunk is computed from it.
SLOWEST_TOKEN_S = 0.1
# Pairs of a chunk's token and a token before it. macOS ends command buffers that hold up the screen
# for too long, and 2048 tokens after 65 000 are known for it (omlx issue 1387, mlx-lm pull request
# 1087); after 32 000 nobody reports it.
METAL_PAIRS = 2048 * 32_768
_MIN_CHUNK = 16
# Large chunks are whole tiles of the matrix kernels, and MLX finds more buffers of the same sizes
# again.
_TILE = 64
_NEWEST_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class AttentionScoresBudget:
    """nbytes: for the attention scores of one chunk. pair_bytes: of one of its tokens with one token that it looks at; 0 where
    scores are never in memory.
    """

    nbytes: int = 0
    pair_bytes: int = 0

    def max_tokens(self, before: int) -> int | None:
        """Of a chunk behind so many tokens; None: any number."""
        if not self.pair_bytes:
            return None
        return (math.isqrt(before**2 + 4 * self.nbytes // self.pair_bytes) - before) // 2


@dataclass(slots=True)
class ChunkSizer:
    """Owned by a worker, kept over its batches."""

    largest_chunk: int  # prompt tokens of a chunk when nobody decodes
    scores: AttentionScoresBudget = (
        AttentionScoresBudget()
    )  # what bounds a chunk behind a long prompt
    most_pairs: int = 0  # of a chunk's tokens and the tokens before them; 0: any number
    # Seconds of a prompt token after `_measured_behind` others; 0 before anything is measured.
    _token_s: float = 0.0
    _measured_behind: int = 0
    _step_s: float = 0.0
    _owed_s: float = 0.0

    @property
    def decode_debt_s(self) -> float:
        """Seconds that decoding has coming before anything else may hold it up again; 0 or less where it has had its share."""
        return self._owed_s

    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        """Prompt tokens of the next chunk, behind so many; 0 where it is decoding's turn."""
        if is_shared and self._owed_s > 0:
            return 0
        in_time = self._shared(before) if is_shared else self._lone(before)
        return _rounded(min(in_time, self._largest(before)))

    def expected_s(self, tokens: int, before: int) -> float:
        """What a chunk of `tokens` behind `before` will take; pessimistic where nothing is
        measured.
        """
        if not self._token_s:
            return tokens * SLOWEST_TOKEN_S * _slowdown(before)
        return tokens * self._token_s_behind(before)

    def _lone(self, before: int) -> int:
        if not self._token_s:
            return int(FIRST_CHUNK / _slowdown(before))
        return int(LONE_CHUNK_S / self._token_s_behind(before))

    def _shared(self, before: int) -> int:
        if not self._token_s:
            return _MIN_CHUNK
        return int(SHARED_CHUNK_S / self._token_s_behind(before))

    def _largest(self, before: int) -> int:
        largest = self.largest_chunk
        if (most := self.scores.max_tokens(before)) is not None:
            largest = min(largest, most)
        if self.most_pairs:
            largest = min(largest, self.most_pairs // max(1, before))
        return largest

    def _token_s_behind(self, before: int) -> float:
        """Pessimistic both ways: scaled up for more tokens before it than were measured, never down
        for fewer.
        """
        return self._token_s * max(1.0, _slowdown(before) / _slowdown(self._measured_behind))

    def note_decode(self, spent_s: float) -> None:
        """A step that only decoded took so long."""
        self._step_s = _blended(self._step_s, spent_s)
        self._owed_s -= spent_s

    def note_chunk(self, tokens: int, before: int, spent_s: float, *, is_shared: bool) -> None:
        """A step that processed so many prompt tokens, and decoded where anyone did, took so long."""
        processing_s = max(spent_s - self._step_s, spent_s / 2) if is_shared else spent_s
        if tokens >= _MIN_CHUNK:
            self._note_token(processing_s / tokens, before, is_shared=is_shared)
        self.note_other(processing_s if is_shared else 0.0)

    def _note_token(self, token_s: float, before: int, *, is_shared: bool) -> None:
        """A lone chunk is measured exactly; of a shared one, what decoding took is an estimate."""
        if is_shared:
            token_s = _blended(self._token_s and self._token_s_behind(before), token_s)
        self._token_s, self._measured_behind = token_s, before

    def note_other(self, spent_s: float) -> None:
        """What is no decoding took so long."""
        self._owed_s = spent_s * DECODE_SHARE / (1 - DECODE_SHARE)


def _slowdown(before: int) -> float:
    """How many times as long a token takes behind so many others, at the worst."""
    return 1 + before / DOUBLING_TOKENS


def _rounded(tokens: int) -> int:
    unit = _TILE if tokens >= 4 * _TILE else _MIN_CHUNK
    return max(_MIN_CHUNK, tokens // unit * unit)


def _blended(old: float, new: float) -> float:
    return new if not old else (1 - _NEWEST_WEIGHT) * old + _NEWEST_WEIGHT * new
