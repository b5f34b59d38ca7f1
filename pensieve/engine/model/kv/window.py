# pyright: basic
"""KV cache of one sequence in one layer with a sliding window.

mlx-lm's rotating cache overwrites its oldest token, so that a full one cannot be trimmed, and its
batches are padded. This one appends, is read from the start of the window, and drops what lies
before it only now and then. In full precision: its size is bounded.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.base import create_causal_mask  # noqa: TID253

from pensieve.engine.model.kv_cache import SequenceKVCache
from pensieve.engine.planning.memory_plan import GROWTH_TOKENS, WINDOW_SPARE_TOKENS

# Tokens before the window that stay when others are dropped: so far the cache can be trimmed.
KEPT_TOKENS = WINDOW_SPARE_TOKENS - GROWTH_TOKENS


class WindowKVCache(SequenceKVCache):
    """Holds the tokens from `start` on: the window, and some before it.

    Its arrays have capacity for `max_size + WINDOW_SPARE_TOKENS` tokens at most; after a prompt
    chunk, for the chunk in addition.
    """

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self.max_size = max_size  # the window, the newest token included
        self.start = 0

    def append(self, keys: mx.array, values: mx.array) -> None:
        tokens = keys.shape[2]
        if not self._keys or self._keys[0].shape[2] < self.offset - self.start + tokens:
            self._make_room(keys, values)
        at = self.offset - self.start
        self._keys[0][..., at : at + tokens, :] = keys
        self._values[0][..., at : at + tokens, :] = values
        self.offset += tokens

    def append_and_view(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.append(keys, values)
        tokens = keys.shape[2]
        return self._seen(self._keys, tokens)[0], self._seen(self._values, tokens)[0]

    def _make_room(self, *new: mx.array) -> None:
        """Move the newest tokens to arrays that have room for `new` ones."""
        kept = min(self.offset - self.start, self.max_size + KEPT_TOKENS)
        room = max(new[0].shape[2], GROWTH_TOKENS)
        old = self.arrays(self.offset - kept, self.offset) or [one[..., :0, :] for one in new]
        self._set_arrays(
            [
                mx.concatenate([one, mx.zeros((*one.shape[:2], room, one.shape[3]), one.dtype)], 2)
                for one in old
            ]
        )
        self.start = self.offset - kept

    def _set_arrays(self, arrays: Sequence[mx.array]) -> None:
        self._keys, self._values = (arrays[0],), (arrays[1],)

    def _seen(self, arrays: tuple[mx.array, ...], tokens: int) -> tuple[mx.array, ...]:
        end = self.offset - self.start
        first = end - _seen_tokens(self.offset, tokens, self.max_size)
        return tuple(array[..., first:end, :] for array in arrays)

    def _mask(self, tokens: int) -> Any:
        return _mask(self.offset, tokens, self.max_size)

    def make_mask(self, tokens: int, window_size: int | None = None, **_: Any) -> Any:
        if window_size not in {None, self.max_size}:
            raise ValueError(f"the window has {self.max_size} tokens, not {window_size}")
        return _mask(self.offset + tokens, tokens, self.max_size)

    def arrays(self, start: int, end: int) -> list[mx.array]:
        return super().arrays(start - self.start, end - self.start)

    @classmethod
    def from_arrays(cls, arrays: Sequence[mx.array], empty: Any, tokens: int) -> "WindowKVCache":
        """Make a cache like `empty` of `tokens` tokens, of which the arrays hold the last ones."""
        restored = cls(empty.max_size)
        restored._set_arrays(arrays)
        restored.offset = tokens
        restored.start = tokens - arrays[0].shape[2]
        return restored

    def copy(self, tokens: int, kept_tokens: int = KEPT_TOKENS) -> "WindowKVCache":
        """Copy the first `tokens` tokens; of those before the window only the last ones."""
        start = max(self.start, tokens - self.max_size - kept_tokens)
        arrays = [mx.contiguous(array) for array in self.arrays(start, tokens)]
        return self.from_arrays(arrays, self, tokens)

    def is_trimmable(self) -> bool:
        return self.start == 0

    def can_trim(self, tokens: int) -> bool:
        """Whether the window of the first `tokens` tokens is still there."""
        return self.start == 0 or self.start + self.max_size <= tokens

    def trim(self, tokens: int) -> int:
        dropped = min(tokens, self.offset)
        self.offset -= dropped
        start = max(self.start, self.offset - self.max_size - KEPT_TOKENS)
        if self._keys and self._keys[0].shape[2] > self.offset - start:
            self._set_arrays([mx.contiguous(array) for array in self.arrays(start, self.offset)])
            self.start = start
        return dropped

    @property
    def is_whole(self) -> bool:
        """Whether all arrays hold the whole window, and no more than all tokens."""
        arrays = (*self._keys, *self._values)
        least = min(self.max_size, self.offset)
        return (
            len({array.shape[2] for array in arrays}) == 1
            and self.start >= 0
            and self.offset - self.start >= least
        )


def _seen_tokens(offset: int, tokens: int, window: int) -> int:
    """Return how many tokens the newest `tokens` of `offset` see together."""
    return min(offset, window - 1 + tokens)


def _mask(offset: int, tokens: int, window: int) -> Any:
    """Return the mask of the newest `tokens` of `offset` over the tokens that they see."""
    if tokens == 1:
        return None
    if offset <= window:
        return "causal"
    return _band(tokens, _seen_tokens(offset, tokens, window), window)


# The layers of a pass share it.
@lru_cache(maxsize=2)
def _band(tokens: int, seen: int, window: int) -> mx.array:
    return create_causal_mask(tokens, seen - tokens, window_size=window)
