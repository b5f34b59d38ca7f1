# pyright: basic
"""The vision tower of Qwen3.5 to Qwen3.8: Qwen3-VL's transformer without "deepstack".

Written from transformers' `modeling_qwen3_5.py` (5.24), whose rows tests/mlx/vision compares.
Attributes have the names of the stored weights. Pixels become patches in blocks of `merge` times
`merge`, each of which ends as one row of the language model's width.
"""

import math
from collections.abc import Iterator
from typing import Any

import mlx.core as mx  # noqa: TID253
import numpy as np
from mlx import nn  # noqa: TID253

from pensieve.engine.model.vision.positions import half_turned
from pensieve.engine.planning.tower_files import TowerShape

_EPS = 1e-6
_ROPE_BASE = 10_000.0


class Tower(nn.Module):
    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self._shape = shape
        width, wide = shape.width, shape.width * shape.merge**2
        # A convolution whose stride is its kernel.
        self.patch_embed = {"proj": nn.Linear(3 * shape.frames * shape.patch**2, width)}
        self.pos_embed = nn.Embedding(shape.table, width)
        self.blocks = [_Block(shape) for _ in range(shape.depth)]
        self.merger = {
            "norm": nn.LayerNorm(width, eps=_EPS),
            "linear_fc1": nn.Linear(wide, wide),
            "linear_fc2": nn.Linear(wide, shape.out),
        }

    def __call__(self, pixels: mx.array) -> mx.array:
        """Return the rows [tokens, out] of a picture: [height, width, 3], 8 bits."""
        *_, rows = self.steps(pixels)
        return rows

    def steps(self, pixels: mx.array) -> Iterator[mx.array]:
        """Yield what each layer makes of a picture; the last one are its rows.

        Nothing is evaluated here, so that a caller can do other work between two layers.
        """
        grid = _Grid(self._shape, pixels.shape[0], pixels.shape[1])
        patches = grid.patches(pixels)
        dtype = self.pos_embed.weight.dtype
        x = self.patch_embed["proj"](patches.astype(dtype)) + self._learned_positions(grid, dtype)
        cosines, sines = grid.rotation(self._shape.width // self._shape.heads)
        for block in self.blocks:
            yield x
            x = block(x, cosines, sines)
        yield x
        x = self.merger["norm"](x).reshape(-1, self._shape.width * self._shape.merge**2)
        yield self.merger["linear_fc2"](nn.gelu(self.merger["linear_fc1"](x)))

    def _learned_positions(self, grid: "_Grid", dtype: mx.Dtype) -> mx.array:
        """Interpolate the square table at the grid's patches, with their corners on its own."""
        side = math.isqrt(self._shape.table)
        ys, xs = grid.places_in_table(side)
        total: Any = 0
        for down in (0, 1):
            for right in (0, 1):
                y, x = np.floor(ys), np.floor(xs)
                weights = np.abs(1 - down - (ys - y)) * np.abs(1 - right - (xs - x))
                at = np.minimum(y + down, side - 1) * side + np.minimum(x + right, side - 1)
                corner = self.pos_embed(mx.array(at.astype(np.int32)))
                total = total + corner * mx.array(weights, dtype)[:, None]
        return total


class _Block(nn.Module):
    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        width = shape.width
        self._heads = shape.heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=_EPS) for _ in range(2))
        self.attn = {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        self.mlp = {
            "linear_fc1": nn.Linear(width, shape.inner),
            "linear_fc2": nn.Linear(shape.inner, width),
        }

    def __call__(self, x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
        """x: patches [patches, width], each of which sees all of its picture."""
        x = x + self._attention(self.norm1(x), cosines, sines)
        hidden = nn.gelu_approx(self.mlp["linear_fc1"](self.norm2(x)))
        return x + self.mlp["linear_fc2"](hidden)

    def _attention(self, x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
        patches, width = x.shape
        split = self.attn["qkv"](x).reshape(patches, 3, self._heads, -1).transpose(1, 2, 0, 3)
        # In float32, as transformers turns them.
        queries, keys = (
            (part * cosines + half_turned(part) * sines).astype(x.dtype)
            for part in split[:2].astype(mx.float32)
        )
        scale = queries.shape[-1] ** -0.5
        seen = mx.fast.scaled_dot_product_attention(
            queries[None], keys[None], split[2][None], scale=scale
        )
        return self.attn["proj"](seen[0].transpose(1, 0, 2).reshape(patches, width))


class _Grid:
    """The patches of one picture, in blocks: those of a block next to each other."""

    def __init__(self, shape: TowerShape, height: int, width: int) -> None:
        """Raises ValueError for a size that is not whole blocks."""
        if height % shape.unit or width % shape.unit:
            raise ValueError(f"a picture of {width}x{height} is not in units of {shape.unit}")
        self._shape = shape
        self._rows, self._columns = height // shape.patch, width // shape.patch
        merge = shape.merge
        order = np.arange(self._rows * self._columns)
        order = order.reshape(self._rows // merge, merge, self._columns // merge, merge)
        self._ys, self._xs = np.divmod(order.transpose(0, 2, 1, 3).ravel(), self._columns)

    def patches(self, pixels: mx.array) -> mx.array:
        """Return [patches, channels * frames * patch * patch] between -1 and 1."""
        merge, patch = self._shape.merge, self._shape.patch
        x = pixels.astype(mx.float32) / 127.5 - 1.0
        x = x.reshape(self._rows // merge, merge, patch, self._columns // merge, merge, patch, 3)
        x = x.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]
        x = mx.broadcast_to(x, (*x.shape[:5], self._shape.frames, patch, patch))
        return x.reshape(self._rows * self._columns, -1)

    def places_in_table(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each patch's row and column in a square table, with fractions."""
        rows, columns = (
            np.linspace(0, side - 1, count, dtype=np.float32)
            for count in (self._rows, self._columns)
        )
        return rows[self._ys], columns[self._xs]

    def rotation(self, head_dim: int) -> tuple[mx.array, mx.array]:
        """Return cosines and sines [patches, head_dim]: half the angles by row, half by column."""
        half = head_dim // 2
        frequencies = _ROPE_BASE ** -(np.arange(0, half, 2) / half)
        angles = [axis[:, None] * frequencies for axis in (self._ys, self._xs)]
        turns = np.concatenate(angles * 2, axis=-1)
        return mx.array(np.cos(turns), mx.float32), mx.array(np.sin(turns), mx.float32)
