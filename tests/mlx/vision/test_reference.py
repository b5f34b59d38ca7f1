"""Rows, positions and logits of prompts with pictures equal those that transformers computes.

The tolerance catches each of these mistakes, which were made on purpose: positions without the
shift after a picture, sections of axes next to each other, corners that are not aligned, rows and
columns swapped, exact for approximate GELU and the reverse.
"""

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from pensieve.engine.generation import Generation
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.prompt_in_prefill import PromptInPrefill
from pensieve.engine.model.vision.loading import load_tower
from pensieve.engine.model.vision.sight import Sight
from pensieve.engine.speculation.drafter import Drafter
from tests.mlx.vision.models import Layout, build, opened, prompt_pictures, prompt_tokens, recorded
from tests.mlx.vision.reference import GRIDS, KINDS, PROMPTS, SAID, Kind, picture, prompt
from tests.support.device import DEVICE

TOLERANCE = 2e-5  # of the largest value


def assert_close(found: mx.array, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    error = np.abs(np.array(found.astype(mx.float32)) - expected).max() / np.abs(expected).max()
    assert error < tolerance


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(kind, tmp_path_factory.mktemp(kind))


@pytest.mark.parametrize("layout", ["hub", "mlx"])
def test_rows_of_pictures_of_any_shape(kind: Kind, layout: Layout, tmp_path: Path) -> None:
    tower = load_tower(build(kind, tmp_path, layout), DEVICE)
    expected = recorded(kind)
    for number in range(len(GRIDS)):
        assert_close(tower(mx.array(picture(number))), expected[f"rows {number}"])


def fed(model: Any, sight: Sight, pictures: tuple[int, ...], chunk: int) -> tuple[Any, list[Any]]:
    """Feed a prompt in chunks; return the logits after each token, and the caches."""
    generation = Generation(prompt_tokens(pictures), 1, pictures=prompt_pictures(pictures))
    for number, one in zip(pictures, generation.pictures, strict=True):
        while sight.unseen(replace(generation, pictures=(one,)), 0):
            sight.desk.want(1, one.id)
            sight.desk.add(one.id, picture(number).tobytes(), is_last=True)
            sight.look(one, seconds=0)
    caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
    logits: list[mx.array] = []
    for start in range(0, len(generation.prompt_tokens), chunk):
        end = min(start + chunk, len(generation.prompt_tokens))
        logits.append(sight.feed(generation, caches, start, end)[0])
    return mx.concatenate(logits), caches


@pytest.mark.parametrize("chunk", [1000, 5])
def test_logits_after_every_token_whole_and_in_chunks(kind: Kind, folder: Path, chunk: int) -> None:
    model, sight = opened(folder)
    expected = recorded(kind)
    for number, pictures in enumerate(PROMPTS):
        logits, _ = fed(model, sight, pictures, chunk)
        assert_close(logits, expected[f"logits {number}"][: len(prompt(pictures))])


def test_sequences_with_different_pictures_decode_together(kind: Kind, folder: Path) -> None:
    model, sight = opened(folder)
    expected = recorded(kind)
    parts = [fed(model, sight, pictures, 1000)[1] for pictures in PROMPTS]
    batch = parts[0]
    for other in parts[1:]:
        for own, new in zip(batch, other, strict=True):
            own.extend(new)
    for step in range(len(SAID[0])):
        logits = model(mx.array([[said[step]] for said in SAID]), cache=batch)[:, -1]
        for number, pictures in enumerate(PROMPTS):
            after = expected[f"logits {number}"][len(prompt(pictures)) + step]
            assert_close(logits[number], after)


def test_memory_is_released_except_for_what_a_prompt_in_progress_needs(folder: Path) -> None:
    _, sight = opened(folder)
    generation = Generation(prompt_tokens((1, 2)), 1, pictures=prompt_pictures((1, 2)))
    first, second = generation.pictures
    sight.prompts = [PromptInPrefill(1, generation, [], 0, deque(), None, Drafter())]
    assert not sight.ask(1, generation, 0)
    sight.desk.add(first.id, picture(1).tobytes(), is_last=True)
    looks = 0
    while sight.unseen(generation, 0) == first:
        sight.look(first, seconds=0)
        sight.release()  # each second, while memory is short
        looks += 1
        assert looks < 10
    assert sight.unseen(generation, 0) == second
    sight.prompts = []
    sight.release()
    assert (sight.nbytes, sight.unseen(generation, 0)) == (0, first)
