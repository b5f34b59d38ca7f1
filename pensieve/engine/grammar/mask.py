# pyright: basic
"""Token masks: a logits processor for mlx-lm that lets through what an answer's grammar allows. Knows no llguidance.

Called once a step with all tokens so far, the first time for the prompt. It never raises, since that would cost everyone in
the batch their step (engine.md, fact 9); what went wrong is in `failure`. The mask is computed while the device computes
the logits that it is for. Plain array operations, the same on every device.
"""

from typing import Any, Protocol

import mlx.core as mx  # noqa: TID253

from pensieve.errors import EngineError


class Matcher(Protocol):
    """What a mask needs of an answer's place in its grammar (compiled.py)."""

    def advance(self, token_id: int) -> None:
        """The answer has one more token."""
        ...

    def allowed(self) -> bytearray:
        """A byte for each token of the vocabulary, 0 where it must not be next."""
        ...


class TokenMask:
    """One answer's mask; owned by its sequence in the batch."""

    def __init__(self, matcher: Matcher) -> None:
        self.failure: Exception | None = None
        self._matcher = matcher
        self._has_begun = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Logits [1, vocabulary] with -inf for what is not allowed after `tokens`."""
        # Reading the last token waits for the step before; this step's forward pass is to be under way by then.
        mx.async_eval(logits)
        if self.failure is not None:
            return logits
        try:
            return masked(logits, self._allowed_after(tokens))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, only this answer ends
            # A panic of llguidance is no Exception.
            is_usual = isinstance(error, Exception)
            self.failure = (
                error if is_usual else EngineError(f"The grammar's library broke: {error}")
            )
            return logits

    def _allowed_after(self, tokens: mx.array) -> bytearray:
        if self._has_begun:
            last: Any = tokens[-1].item()
            self._matcher.advance(last)
        self._has_begun = True
        return self._matcher.allowed()


def masked(logits: mx.array, allowed: bytearray) -> mx.array:
    """Models pad their vocabulary: what is beyond `allowed` is not."""
    size = logits.shape[-1]
    row: Any = memoryview(allowed.ljust(size, b"\0"))[:size]
    return mx.where(mx.array(row), logits, -mx.inf)
