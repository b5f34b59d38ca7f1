"""What the engine is allowed is what it does: the precision that was asked for, the memory that it was given. A whole worker's parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import mlx.core as mx
import pytest

from pensieve.engine.generation import Generation, ResourceLimits, Sampling
from pensieve.engine.model.loading import wirable_bytes
from pensieve.engine.planning.memory_plan import GB, PROCESS_BYTES
from pensieve.engine.protocol import Load
from pensieve.engine.worker.build import build_engine
from pensieve.engine.worker.context import WorkerContext
from tests import tiny_models
from tests.device import DEVICE

PROMPT = tuple(range(3, 250)) * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built for more tokens than any memory holds."""
    home = tmp_path_factory.mktemp("qwen3")
    return tiny_models.build("qwen3", home, head_dim=32, max_position_embeddings=10**9)


@contextmanager
def assembled(folder: Path, allowance: ResourceLimits) -> Iterator[WorkerContext]:
    before = mx.set_memory_limit(GB)
    work = build_engine(Load(str(folder), DEVICE, None, allowance))
    try:
        yield work
    finally:
        work.scheduler.close()
        work.anteroom.close()
        work.close()
        mx.set_memory_limit(before)


def bytes_at_rest(folder: Path, bits: Literal[16, 8, 4] | None) -> tuple[int, int | None, str, int]:
    """Of a kept prompt, as /health has it; with the precision and its reason, and the context that follows."""
    with assembled(folder, ResourceLimits(4 * GB, kv_bits=bits)) as work:
        work.scheduler.submit(1, Generation(PROMPT, 4, sampling=Sampling(temperature=0)))
        while not work.scheduler.is_idle:
            work.scheduler.step()
        told = work.figures(0.0)
        return told.prefix_memory_bytes, told.kv_bits, told.kv_reason, work.context_tokens


def test_the_bits_that_were_asked_for_are_the_bits_that_are_kept(folder: Path) -> None:
    full, bits, reason, context = bytes_at_rest(folder, 16)
    assert (bits, reason) == (None, "full precision, as asked for")
    # float32 on a CPU: 32 bits a value; a group of 32 has a scale and a bias of 32 bits each.
    for asked, share in ((8, 10 / 32), (4, 6 / 32)):
        held, bits, reason, longer = bytes_at_rest(folder, asked)
        assert (bits, reason) == (asked, f"{asked}-bit, as asked for")
        assert held / full == pytest.approx(share, rel=0.01)
        # Scores and copies of a layer are paid as well, and cost the same or more.
        assert context < longer < context / share
    assert bytes_at_rest(folder, None)[:2] == (full, None)


def test_a_model_beside_which_no_prompt_fits_does_not_load(folder: Path) -> None:
    with pytest.raises(ValueError, match="no prompt fits beside them"):
        build_engine(Load(str(folder), DEVICE, None, ResourceLimits(GB)))


def test_heads_that_cannot_be_quantized_are_kept_whole_and_the_model_runs(tmp_path: Path) -> None:
    folder = tiny_models.build("qwen3", tmp_path, head_dim=16)
    _, bits, reason, _ = bytes_at_rest(folder, 8)
    assert (bits, reason) == (None, "full precision: heads of 16 values cannot be quantized")


def test_mlx_gives_back_what_it_keeps_for_reuse_before_the_limit_of_all_is_passed(
    folder: Path,
) -> None:
    with assembled(folder, ResourceLimits(4 * GB)):
        assert mx.set_memory_limit(GB) == 4 * GB - PROCESS_BYTES


def test_no_more_is_wired_than_metal_recommends() -> None:
    told = {"max_recommended_working_set_size": 12_713_115_648}
    assert wirable_bytes(14 * GB, told) == 12_713_115_648
    assert wirable_bytes(10 * GB, told) == wirable_bytes(10 * GB, {}) == 10 * GB
