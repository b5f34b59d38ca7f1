# pyright: basic
"""Drafts of an MTP head for a sequence that decodes alone.

Used by decode_batch.py. The head needs each token's hidden state together with the token that
follows. These pairs are only collected while there are no drafts, which launches nothing, and are
computed together for the next one. The head begins with the last tokens of a prompt: the hidden
states of those that were processed before, or come from the prefix cache, are gone, and without
them it only is right less often. Pairs are those of tokens that stay, so its cache is never cut.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.model.loading import LogitRows
from pensieve.engine.model.mtp.head import CONTEXT_PAIRS
from pensieve.engine.speculation.draft_source import DraftHead

# Of a prompt: they delay the first draft by a part of a step.
PROMPT_PAIRS = 128


class HeadDrafts:
    """Owned by a decode batch; knows the pairs of its only sequence."""

    def __init__(self, head: DraftHead, logit_rows: LogitRows) -> None:
        self._head = head
        self._logit_rows = logit_rows
        logit_rows.keeps_hidden = True
        self._cache: Any = None
        # Not in the cache yet: hidden states [pairs, values] and tokens [pairs].
        self._pairs: deque[tuple[mx.array, mx.array]] = deque()
        self._count = 0  # of them

    @property
    def is_ready(self) -> bool:
        """Whether the newest token's pair is known."""
        return bool(self._pairs)

    def clear(self) -> None:
        """Forget the sequence: another one takes its place or joins it."""
        self._cache, self._count = None, 0
        self._pairs.clear()

    def begin(self, last: Sequence[int], sampled: mx.array) -> None:
        """Start with a pass over the `last` tokens of a prompt, after which `sampled` follows."""
        self.clear()
        hidden = self._newest_hidden()
        if len(hidden) != len(last):
            return  # a pass over several prompts
        # The head knows no pictures, whose tokens are negative.
        after = next((at for at in range(len(last), 0, -1) if last[at - 1] < 0), 0)
        if after == len(last):
            return
        hidden, last = hidden[after:], last[after:]
        hidden = mx.contiguous(hidden[-PROMPT_PAIRS:])
        mx.async_eval(hidden)  # a view would keep the states of the whole pass
        following = mx.array(list(last[1:])[1 - PROMPT_PAIRS :], dtype=sampled.dtype)
        self._add(hidden, mx.concatenate([following, sampled]))

    def note(self, fed_again: int, sampled: mx.array, kept: int) -> None:
        """Add pairs of the newest pass.

        fed_again: its first tokens, whose pairs are known. sampled: after each of the others, of
        which the first `kept` stay.
        """
        hidden = self._newest_hidden()
        if len(hidden) != kept:
            hidden = hidden[fed_again : fed_again + kept]
        self._add(hidden, sampled if len(sampled) == kept else sampled[:kept])

    def draft(self) -> mx.array:
        """Return the token [1] that is likely to follow the newest one, scheduled."""
        if self._cache is None:
            self._cache = self._head.make_cache()
        hidden = mx.concatenate([states for states, _ in self._pairs])
        tokens = mx.concatenate([following for _, following in self._pairs])
        self._pairs.clear()
        self._count = 0
        return self._head.draft(hidden[None], tokens[None], self._cache)

    def _add(self, hidden: mx.array, tokens: mx.array) -> None:
        self._pairs.append((hidden, tokens))
        self._count += len(tokens)
        while self._count > CONTEXT_PAIRS:
            # All pairs in the cache are further away than the head's attention reaches.
            self._cache = None
            self._count -= len(self._pairs.popleft()[1])

    def _newest_hidden(self) -> mx.array:
        """Return the hidden states [tokens, values] of the newest pass."""
        hidden = self._logit_rows.hidden
        assert hidden is not None
        self._logit_rows.hidden = None
        return hidden.reshape(-1, hidden.shape[-1])
