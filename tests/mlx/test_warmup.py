"""Tests warm-up of the real batch: a burst needs no new kernel, and answers stay the same."""

from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import pytest

from pensieve.engine.generation import Generation, Sampling
from pensieve.engine.long_operations import PART_BYTES, StepAnnouncer
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker, supports_ragged_kv
from pensieve.engine.model.loading import load_weights, parts_of
from pensieve.engine.scheduling.backend import PrefillProgress, Sampled
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.worker.warmup import CHUNK_TOKENS, FixedChunks, prompts_of, warm_up
from tests.mlx.scheduler_bench import prompt_of
from tests.support import tiny_architectures, tiny_models
from tests.support.device import DEVICE

Announced = list[tuple[str, float]]
COMPILING_S = 1000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def make_caches(folder: Path) -> CacheMaker:
    model = load_weights(folder, DEVICE)
    return CacheMaker(model, supports_ragged_kv(model))


def warmed_up(make_caches: CacheMaker, announced: Announced) -> StepAnnouncer:
    announcer = StepAnnouncer(lambda work, s: announced.append((work, s)), compiling_s=COMPILING_S)
    chunk = CHUNK_TOKENS["cuda"]
    backend = BatchBackend(
        make_caches.model,
        make_caches,
        FixedChunks(chunk),
        announcer=announcer.with_prefix("preparing kernels: "),
    )
    assert warm_up(backend, prompts_of(chunk, 8), 60.0) == 10
    return announcer


def answers(backend: BatchBackend, prompts: list[tuple[int, ...]]) -> dict[int, list[int]]:
    for key, prompt in enumerate(prompts):
        backend.insert(key, Generation(prompt, 5, sampling=Sampling(temperature=0)), None)
    sampled: dict[int, list[int]] = {key: [] for key in range(len(prompts))}
    while any(len(tokens) < 5 for tokens in sampled.values()):
        for outcome in backend.step():
            if isinstance(outcome, Sampled):
                sampled[outcome.key] += outcome.tokens
    return sampled


def test_warm_up_announces_its_passes(make_caches: CacheMaker) -> None:
    announced: Announced = []
    warmed_up(make_caches, announced)
    assert announced[0] == ("preparing kernels: processing 512 tokens after 0", 1256.0)
    assert {work.partition(": ")[0] for work, _ in announced} == {"preparing kernels"}
    # A chunk, the rest of its prompt, and a short prompt into each batch of one to seven.
    assert len(announced) == 9


def test_burst_after_warm_up_compiles_nothing_and_changes_no_answer(
    make_caches: CacheMaker,
) -> None:
    prompts = [prompt_of(length) for length in (512, 12, 9, 16, 14, 10, 11, 15)]
    cold = answers(BatchBackend(make_caches.model, make_caches, ChunkSizer(512)), prompts)
    announced: Announced = []
    announcer = warmed_up(make_caches, announced)
    announced.clear()
    warm = BatchBackend(make_caches.model, make_caches, ChunkSizer(512), announcer=announcer)
    assert answers(warm, prompts) == cold
    assert announced
    assert max(timeout_s for _, timeout_s in announced) < COMPILING_S


def test_reading_the_weights_is_announced(folder: Path) -> None:
    announced: Announced = []
    load_weights(folder, DEVICE, lambda work, s: announced.append((work, s)))
    assert announced == [("reading the weights (0.0 of 0.0 GB)", 60.0)]


def test_weights_are_split_into_parts_of_limited_size() -> None:
    sizes = [PART_BYTES // 2, PART_BYTES // 4, PART_BYTES // 2, 2 * PART_BYTES, 8, 8]
    parts = parts_of([mx.zeros(size, mx.uint8) for size in sizes])
    assert [[array.nbytes for array in part] for part in parts] == [
        sizes[:2], sizes[2:3], sizes[3:4], sizes[4:]
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_every_chunk_is_announced_with_its_size(family: str) -> None:
    """Includes a model whose checkpoints end chunks early."""
    model = tiny_architectures.build(family)
    caches = CacheMaker(model, supports_ragged_kv(model))
    announced: list[str] = []
    announcer = StepAnnouncer(lambda work, _: announced.append(work))
    backend = BatchBackend(model, caches, FixedChunks(64), announcer=announcer)
    generation = Generation(prompt_of(300), 3, boundaries=(100, 250))
    backend.insert(1, generation, None)
    ends = [0]
    while ends[-1] < 300:
        ends += [
            event.prompt_tokens for event in backend.step() if isinstance(event, PrefillProgress)
        ]
    assert announced == [
        f"processing {end - start} tokens after {start}" for start, end in pairwise(ends)
    ]
