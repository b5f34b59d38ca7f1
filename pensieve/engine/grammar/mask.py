# pyright: basic
"""Token masks: set the logits of tokens that an answer's grammar forbids to -inf.

Called by decode_batch.py once per step, the first time for the prompt, while the device computes
the logits. Never raises, since that would fail the step of the whole batch; errors are stored in
`failure`. Plain array operations, the same on every device. Knows no llguidance.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import mlx.core as mx  # noqa: TID253

from pensieve.errors import EngineError

ResultT = TypeVar("ResultT")


class Matcher(Protocol):
    """An answer's position in its grammar (compiled.py)."""

    def advance(self, token_id: int) -> None:
        """Append one token to the answer."""
        ...

    def masks(self, drafts: Sequence[int]) -> list[bytearray]:
        """Return a mask of the next token, and one after each draft; fewer if that is too costly.

        A mask has a byte per token of the vocabulary, 0 if it must not be next.
        """
        ...

    def forced(self) -> list[int]:
        """Return the tokens that must be next."""
        ...

    def valid(self, tokens: Sequence[int]) -> int:
        """Return how many of the tokens may be next, one after the other, and are no stop token."""
        ...


class TokenMask:
    """One answer's mask; owned by its sequence in the batch."""

    def __init__(self, matcher: Matcher) -> None:
        self.failure: Exception | None = None
        self._matcher = matcher
        self._vocabulary = 0  # of the model; known after the first logits

    def __call__(self, logits: mx.array, drafts: Sequence[int] = ()) -> tuple[mx.array, int]:
        """Mask logits [rows, vocabulary] of the next token and of those after each draft.

        Return how many drafts have masked logits after them; others must not be accepted.
        """
        self._vocabulary = logits.shape[-1]
        masks = self._guarded(lambda: self._matcher.masks(drafts), [])
        rows = [masked(logits[at : at + 1], allowed) for at, allowed in enumerate(masks)]
        rest = logits[len(masks) :]
        return mx.concatenate([*rows, rest] if len(rest) else rows), max(0, len(masks) - 1)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens to the answer."""
        for token in tokens:
            self._guarded(lambda token=token: self._matcher.advance(token), None)

    def forced(self) -> list[int]:
        """Return the tokens that must be next."""
        tokens = self._guarded(self._matcher.forced, [])
        beyond = (at for at, token in enumerate(tokens) if token >= self._vocabulary)
        return tokens[: next(beyond, len(tokens))]

    def valid(self, tokens: Sequence[int]) -> int:
        """Return how many of the tokens the grammar allows."""
        return self._guarded(lambda: self._matcher.valid(tokens), 0)

    def _guarded(self, call: Callable[[], ResultT], default: ResultT) -> ResultT:
        """Return `default` after a failure, now or earlier."""
        if self.failure is not None:
            return default
        try:
            return call()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - fails this answer only
            # A panic of llguidance is not an `Exception`.
            is_exception = isinstance(error, Exception)
            self.failure = (
                error if is_exception else EngineError(f"The grammar library failed: {error}")
            )
            return default


def masked(logits: mx.array, allowed: bytearray) -> mx.array:
    """Mask logits; models pad their vocabulary, and tokens beyond `allowed` are not allowed."""
    size = logits.shape[-1]
    row: Any = memoryview(allowed.ljust(size, b"\0"))[:size]
    return mx.where(mx.array(row), logits, -mx.inf)
