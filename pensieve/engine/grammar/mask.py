# pyright: basic
"""Token masks: set the logits of tokens that an answer's grammar forbids to -inf.

Called by decode_batch.py once per step, the first time for the prompt. Never raises, since that
would fail the step of the whole batch; errors are stored in `failure`. The mask is computed while
the device computes the logits. Plain array operations, the same on every device. Knows no
llguidance.
"""

from typing import Any, Protocol

import mlx.core as mx  # noqa: TID253

from pensieve.errors import EngineError


class Matcher(Protocol):
    """An answer's position in its grammar (compiled.py)."""

    def advance(self, token_id: int) -> None:
        """Append one token to the answer."""
        ...

    def allowed(self) -> bytearray:
        """Return a byte per token of the vocabulary, 0 if it must not be next."""
        ...


class TokenMask:
    """One answer's mask; owned by its sequence in the batch."""

    def __init__(self, matcher: Matcher) -> None:
        self.failure: Exception | None = None
        self._matcher = matcher
        self._has_begun = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Return logits [1, vocabulary] with -inf for tokens not allowed after `tokens`."""
        # Reading the last token waits for the previous step; start this step's forward pass before.
        mx.async_eval(logits)
        if self.failure is not None:
            return logits
        try:
            return masked(logits, self._allowed_after(tokens))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - fails this answer only
            # A panic of llguidance is not an `Exception`.
            is_exception = isinstance(error, Exception)
            self.failure = (
                error if is_exception else EngineError(f"The grammar library failed: {error}")
            )
            return logits

    def _allowed_after(self, tokens: mx.array) -> bytearray:
        if self._has_begun:
            last: Any = tokens[-1].item()
            self._matcher.advance(last)
        self._has_begun = True
        return self._matcher.allowed()


def masked(logits: mx.array, allowed: bytearray) -> mx.array:
    """Mask logits; models pad their vocabulary, and tokens beyond `allowed` are not allowed."""
    size = logits.shape[-1]
    row: Any = memoryview(allowed.ljust(size, b"\0"))[:size]
    return mx.where(mx.array(row), logits, -mx.inf)
