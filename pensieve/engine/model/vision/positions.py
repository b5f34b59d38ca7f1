# pyright: basic
"""Positions of tokens in prompts with pictures: M-RoPE with interleaved axes, as Qwen3.5's.

Each token has three positions, by time, row and column; those of a text token are equal. A picture
takes as many positions as its longer side has tokens, so what follows it is `shift_after` tokens
nearer than it stands. Decoding therefore needs one number a sequence, and nothing in its KV caches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx  # noqa: TID253
import numpy as np
from mlx import nn  # noqa: TID253

from pensieve.engine.pictures import PromptPicture


def shift_after(pictures: Sequence[PromptPicture], tokens: int) -> int:
    """Return what to add to `tokens` for the position of the token after so many, of a text."""
    return sum(_shift(each) for each in pictures if each.tokens.stop <= tokens)


def _shift(picture: PromptPicture) -> int:
    return max(picture.rows, picture.columns) - len(picture.tokens)


def positions_between(pictures: Sequence[PromptPicture], start: int, end: int) -> np.ndarray:
    """Return the positions [3, end - start] of these tokens of a prompt."""
    positions = np.empty((3, end - start), np.int32)
    positions[:] = np.arange(start, end) + shift_after(pictures, start)
    for picture in pictures:
        tokens = picture.tokens
        if tokens.start >= end or tokens.stop <= start:
            continue
        first = tokens.start + shift_after(pictures, tokens.start)
        inside = np.arange(max(start, tokens.start), min(end, tokens.stop))
        rows, columns = np.divmod(inside - tokens.start, picture.columns)
        at = slice(inside[0] - start, inside[-1] + 1 - start)
        positions[:, at] = np.stack([np.full_like(rows, first), first + rows, first + columns])
        positions[:, at.stop :] += _shift(picture)
    return positions


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines [tokens, dims] of the tokens of one pass: a cache's `offset` in it."""

    cosines: mx.array
    sines: mx.array


class MultiAxisRope(nn.Module):
    """In place of an attention's `rope`.

    As that, for positions as numbers; it also turns by a `Rotation`.
    """

    def __init__(self, dims: int, base: float, section: Sequence[int]) -> None:
        """section: frequencies of time, row and column."""
        super().__init__()
        self._dims = dims
        self._base = base
        self._axis = np.zeros(dims // 2, np.int32)
        for axis in (1, 2):
            self._axis[axis : section[axis] * 3 : 3] = axis

    def rotation(self, positions: np.ndarray) -> Rotation:
        frequencies = 1.0 / self._base ** (np.arange(0, self._dims, 2) / self._dims)
        angles = positions[self._axis].T * frequencies
        cosines, sines = (np.concatenate([turn(angles)] * 2, -1) for turn in (np.cos, np.sin))
        return Rotation(mx.array(cosines, mx.float32), mx.array(sines, mx.float32))

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """x: queries or keys [rows, heads, tokens, head_dim]."""
        if not isinstance(offset, Rotation):
            return mx.fast.rope(
                x, self._dims, traditional=False, base=self._base, scale=1.0, offset=offset
            )
        part = x[..., : self._dims]
        turned = part * offset.cosines + half_turned(part) * offset.sines
        return mx.concatenate([turned.astype(x.dtype), x[..., self._dims :]], axis=-1)


def half_turned(x: mx.array) -> mx.array:
    half = x.shape[-1] // 2
    return mx.concatenate([-x[..., half:], x[..., :half]], axis=-1)


def use_multi_axis_rope(model: Any) -> MultiAxisRope:
    """Replace the model's rotary embeddings; return one. All are the same.

    Raises ValueError for a model that was trained with other positions.
    """
    args = model.language_model.args
    parameters = args.rope_parameters or {}
    section: list[int] = parameters.get("mrope_section") or []
    # Sections next to each other, as before Qwen3-VL, would leave text right and pictures wrong.
    is_known = len(section) == 3 and parameters.get("mrope_interleaved", True)
    dims = int(args.head_dim * args.partial_rotary_factor)
    if not is_known or sum(section) != dims // 2 or parameters.get("type", "default") != "default":
        raise ValueError("the positions of its pictures are of an unknown kind")
    rope = MultiAxisRope(dims, args.rope_theta, section)
    for layer in model.layers:
        if "self_attn" in layer:
            layer.self_attn.rope = rope
    return rope
