# pyright: basic
"""Feeds prompts with pictures to a model: the rows of its tower in place of their tokens.

The tower is loaded for the first picture. It looks at one picture at a time, a few layers a step,
so that running answers wait no longer than for a chunk of text. The rows of the latest pictures are
kept: clients send a picture again with every turn, and a prefix may be evicted.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253
import numpy as np

from pensieve.engine.generation import Generation
from pensieve.engine.model.kv_cache import RaggedKV
from pensieve.engine.model.prompt_in_prefill import PromptInPrefill
from pensieve.engine.model.vision.positions import (
    MultiAxisRope,
    positions_between,
    shift_after,
)
from pensieve.engine.model.vision.tower import Tower
from pensieve.engine.pictures import PromptPicture
from pensieve.engine.planning.tower_files import ROWS_BYTES, TowerShape
from pensieve.engine.scheduling.pixel_desk import MOST_ASKED, PixelDesk
from pensieve.errors import EngineError


class Sight:
    """Owned by the worker; outlives its batches."""

    def __init__(  # noqa: PLR0913 -- two have defaults
        self,
        model: Any,
        shape: TowerShape,
        rope: MultiAxisRope,
        load: Callable[[], Tower],
        desk: PixelDesk,
        *,
        max_rows_bytes: int = ROWS_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._shape = shape
        self._rope = rope
        self._load = load
        self._tower: Tower | None = None
        self.desk = desk
        self._max_rows_bytes = max_rows_bytes
        self._clock = clock
        self._rows: dict[str, mx.array] = {}  # by picture, the latest last
        self._looking: tuple[str, Iterator[mx.array]] | None = None
        self.looked = 0  # pictures that the tower has looked at
        # Those of the batch: what they need is not released.
        self.prompts: Collection[PromptInPrefill] = ()

    # Which rows are here

    def unseen(self, generation: Generation, done: int) -> PromptPicture | None:
        """Return the first picture after `done` tokens whose rows are not here."""
        return next(self._unseen(generation, done), None)

    def _unseen(self, generation: Generation, done: int) -> Iterator[PromptPicture]:
        for picture in generation.pictures:
            if picture.tokens.stop > done and picture.id not in self._rows:
                yield picture

    def ask(self, key: int, generation: Generation, done: int) -> bool:
        """Ask for the pixels of the next pictures; return whether the first one's are here."""
        pictures = list(self._unseen(generation, done))[:MOST_ASKED]
        for picture in pictures:
            if self.desk.pixels(picture.id) is None:
                self.desk.want(key, picture.id)
        return self.desk.pixels(pictures[0].id) is not None

    def look(self, picture: PromptPicture, seconds: float) -> None:
        """Have the tower go on with a picture whose pixels are here for about so long.

        Raises `EngineError` for pixels of another size.
        """
        until_s = self._clock() + seconds
        if self._looking is None or self._looking[0] != picture.id:
            self._looking = (picture.id, self._steps_of(picture))
        rows = None
        for rows in self._looking[1]:
            mx.eval(rows)
            if rows.shape[0] == len(picture.tokens) and rows.shape[1] == self._shape.out:
                break
            if self._clock() >= until_s:
                return
        self._looking = None
        assert rows is not None
        self._keep(picture, rows)

    def _steps_of(self, picture: PromptPicture) -> Iterator[mx.array]:
        pixels, unit = self.desk.pixels(picture.id) or b"", self._shape.unit
        height, width = picture.rows * unit, picture.columns * unit
        if len(pixels) != height * width * 3:
            self.desk.drop(picture.id)
            raise EngineError("A picture's pixels are not those of its size.")
        if self._tower is None:
            self._tower = self._load()
        return self._tower.steps(
            mx.array(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
        )

    def _keep(self, picture: PromptPicture, rows: mx.array) -> None:
        self.looked += 1
        self.desk.drop(picture.id)
        self._rows[picture.id] = rows
        while self.nbytes > self._max_rows_bytes and len(self._rows) > 1:
            del self._rows[next(iter(self._rows))]

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for rows in self._rows.values())

    def release(self) -> None:
        """Free what no prompt in progress needs, and what MLX keeps: memory is short, or idle.

        Memory may stay short: a tower that was freed then would begin again every second.
        """
        needed = {
            picture.id
            for prompt in self.prompts
            for picture in prompt.generation.pictures
            if picture.tokens.stop > prompt.done
        }
        self._rows = {name: rows for name, rows in self._rows.items() if name in needed}
        if not needed:
            self._tower, self._looking = None, None
        mx.clear_cache()

    def begin_again(self) -> None:
        """A batch failed: nothing is asked for any more."""
        self._looking = None
        self.desk.clear()

    # Feeding

    def feed(self, generation: Generation, caches: Sequence[Any], start: int, end: int) -> mx.array:
        """Feed these tokens of a prompt; return the logits that the model gives.

        caches: batch caches of one row, which hold the tokens before `start`. The rows of the
        pictures between are here.
        """
        pictures = generation.pictures
        within = [each for each in pictures if each.start < end and each.tokens.stop > start]
        rotation = self._rope.rotation(positions_between(pictures, start, end)) if within else None
        layers = [cache for cache in caches if isinstance(cache, RaggedKV)]
        place(layers, shift_after(pictures, start), rotation)
        try:
            embedded = self._embedded(generation.prompt_tokens[start:end], start, within)
            return self._model(None, cache=caches, input_embeddings=embedded)
        finally:
            place(layers, shift_after(pictures, end), None)

    def _embedded(
        self, tokens: Sequence[int], start: int, within: Sequence[PromptPicture]
    ) -> mx.array:
        texts = mx.maximum(mx.array(list(tokens), mx.int32), 0)
        embedded = self._model.language_model.model.embed_tokens(texts[None])
        for picture in within:
            rows = self._rows[picture.id] = self._rows.pop(picture.id)  # the latest is the last
            span = picture.tokens
            first, last = max(span.start, start), min(span.stop, start + len(tokens))
            seen = rows[first - span.start : last - span.start].astype(embedded.dtype)
            embedded[0, first - start : last - start] = seen
        return embedded


def place(layers: Sequence[RaggedKV], shift: int, rotation: Any) -> None:
    """Set the positions of the next tokens of a batch of one sequence."""
    for layer in layers:
        layer.rotation = rotation
        for sequence in layer.sequences:
            sequence.shift = shift
