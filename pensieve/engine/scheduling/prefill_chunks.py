"""Number of prompt tokens in the next prefill chunk: by measured time, by memory, and by what macOS
allows one command buffer. Short prompts share a chunk.

Plain arithmetic for engine/model/batch.py, which measures the time. A chunk alone takes about
`LONE_CHUNK_S`. While others decode, a chunk takes about `SHARED_CHUNK_S`, and decode steps run
between chunks until decoding has had its share of the time, so that no answer stalls for a long
prompt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SHARED_CHUNK_S = 0.25
DECODE_SHARE = 0.3
# Cancelling, `stop` and the screen wait for one chunk at most. A fast machine reaches its largest
# chunk in this time (2048 tokens at 585 a second); a slow one loses nothing, since 64 tokens occupy
# any GPU that is so slow.
LONE_CHUNK_S = 3.5
# Before anything is measured: 11 s for a dense 27B model on an M2 (46.7 tokens a second on an M2
# Pro, rapid's benchmarks, 2026), where 512 would take half of the health check's timeout; 1 s for
# a 4B model on an M1.
FIRST_CHUNK = 256
# A token after this many others takes at most twice as long as the first: Qwen3-Coder-30B by its
# operations, 2 x 3.3e9 for its weights, 4 x 48 layers x 32 heads x 128 values for each token before
# it. Others need 14 000 to 140 000 tokens.
DOUBLING_TOKENS = 8192
# Assumed before anything is measured, for the slowest usable machine. Only the timeout of the first
# chunk depends on it.
SLOWEST_TOKEN_S = 0.1
# Pairs of a chunk's token and a token before it. macOS ends command buffers that hold up the screen
# for too long, as reported for 2048 tokens after 65 000 (omlx issue 1387, mlx-lm pull request
# 1087); after 32 000 there are no reports.
METAL_PAIRS = 2048 * 32_768
_MIN_CHUNK = 16
# Tokens of several prompts in one chunk, where a lone prompt's chunk is smaller: on a CPU, whose
# attention is slow for many tokens of one prompt (1000 tokens of a tiny model: 0.24 s in chunks of
# 128 tokens, 0.39 s in chunks of 512; two x86-64 cores, 2026-11-30).
_MAX_TOGETHER = 512
# Shorter prompts share a pass whatever else is in it.
_SHORT_PROMPT = 128
# Large chunks are whole tiles of the matrix kernels, and MLX can reuse more of its buffers.
_TILE = 64
_NEWEST_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class AttentionScoresBudget:
    nbytes: int = 0  # for the attention scores of one chunk
    # Of one of its tokens with one token that it attends to; 0 if scores are never in memory.
    pair_bytes: int = 0

    def max_tokens(self, before: int) -> int | None:
        """Return the largest chunk after `before` tokens; None for no limit."""
        if not self.pair_bytes:
            return None
        return (math.isqrt(before**2 + 4 * self.nbytes // self.pair_bytes) - before) // 2


class PromptRest(NamedTuple):
    """The tokens of a prompt that are not processed yet."""

    tokens: int
    before: int  # tokens that are


@dataclass(slots=True)
class ChunkSizer:
    """Owned by a worker; outlives its batches."""

    max_chunk: int  # prompt tokens of a chunk while nothing decodes
    # Limits a chunk after a long prompt.
    scores: AttentionScoresBudget = AttentionScoresBudget()
    max_pairs: int = 0  # of a chunk's tokens and the tokens before them; 0: any number
    # Seconds of a prompt token after `_measured_before` others; 0 before anything is measured.
    _token_s: float = 0.0
    _measured_before: int = 0
    _step_s: float = 0.0
    _decode_debt_s: float = 0.0

    @property
    def decode_debt_s(self) -> float:
        """Seconds owed to decoding before anything else may delay it again; 0 or less if none."""
        return self._decode_debt_s

    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        """Return the prompt tokens of the next chunk after `before`; 0 if decoding is due."""
        return self._chunk(before, self.max_chunk, is_shared=is_shared)

    def chunk_of_several(self, before: int, *, is_shared: bool) -> int:
        """Return the tokens of the next chunk if they are of several prompts."""
        return self._chunk(before, max(self.max_chunk, _MAX_TOGETHER), is_shared=is_shared)

    def _chunk(self, before: int, largest: int, *, is_shared: bool) -> int:
        if is_shared and self._decode_debt_s > 0:
            return 0
        in_time = self._shared_chunk(before) if is_shared else self._lone_chunk(before)
        return _rounded(min(in_time, self._chunk_limit(before, largest)))

    def prompts_in_chunk(self, rests: Sequence[PromptRest], *, is_shared: bool) -> int:
        """Return how many of these prompts, from the first on, are processed to their ends in one
        chunk; 0 if it ends within the first.

        No prompt waits for one that is much longer than those before it.
        """
        share, total = 0.0, 0
        for count, rest in enumerate(rests):
            if rest.tokens > self.next_chunk(rest.before, is_shared=is_shared):
                return count
            share += rest.tokens / self.chunk_of_several(rest.before, is_shared=is_shared)
            if share > 1 or (count and rest.tokens > max(total, _SHORT_PROMPT)):
                return count
            total += rest.tokens
        return len(rests)

    def expected_s(self, tokens: int, before: int) -> float:
        """Estimate a chunk's duration; pessimistic until something is measured."""
        if not self._token_s:
            return tokens * SLOWEST_TOKEN_S * _slowdown(before)
        return tokens * self._token_s_after(before)

    def _lone_chunk(self, before: int) -> int:
        if not self._token_s:
            return int(FIRST_CHUNK / _slowdown(before))
        return int(LONE_CHUNK_S / self._token_s_after(before))

    def _shared_chunk(self, before: int) -> int:
        if not self._token_s:
            return _MIN_CHUNK
        return int(SHARED_CHUNK_S / self._token_s_after(before))

    def _chunk_limit(self, before: int, largest: int) -> int:
        limit = largest
        if (by_memory := self.scores.max_tokens(before)) is not None:
            limit = min(limit, by_memory)
        if self.max_pairs:
            limit = min(limit, self.max_pairs // max(1, before))
        return limit

    def _token_s_after(self, before: int) -> float:
        # Pessimistic: scaled up for more preceding tokens than were measured, never down for fewer.
        return self._token_s * max(1.0, _slowdown(before) / _slowdown(self._measured_before))

    def note_decode(self, spent_s: float) -> None:
        self._step_s = _blended(self._step_s, spent_s)
        self._decode_debt_s -= spent_s

    def note_chunk(self, tokens: int, before: int, spent_s: float, *, is_shared: bool) -> None:
        """Record a step with a chunk after `before` tokens; a shared one also decoded."""
        processing_s = max(spent_s - self._step_s, spent_s / 2) if is_shared else spent_s
        if tokens >= _MIN_CHUNK:
            self._note_token(processing_s / tokens, before, is_shared=is_shared)
        self.note_other(processing_s if is_shared else 0.0)

    def _note_token(self, token_s: float, before: int, *, is_shared: bool) -> None:
        # A lone chunk is measured exactly; in a shared one, decoding's part is an estimate.
        if is_shared:
            token_s = _blended(self._token_s and self._token_s_after(before), token_s)
        self._token_s, self._measured_before = token_s, before

    def note_other(self, spent_s: float) -> None:
        """Record time spent on anything but decoding, which decoding is owed a share of."""
        self._decode_debt_s = spent_s * DECODE_SHARE / (1 - DECODE_SHARE)


def _slowdown(before: int) -> float:
    """Return by which factor a token after `before` others is slower than the first, at worst."""
    return 1 + before / DOUBLING_TOKENS


def _rounded(tokens: int) -> int:
    unit = _TILE if tokens >= 4 * _TILE else _MIN_CHUNK
    return max(_MIN_CHUNK, tokens // unit * unit)


def _blended(old: float, new: float) -> float:
    return new if not old else (1 - _NEWEST_WEIGHT) * old + _NEWEST_WEIGHT * new
