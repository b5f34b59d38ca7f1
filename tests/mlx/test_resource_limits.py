"""Tests that an engine keeps to its limits: the requested KV precision and memory."""

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
from tests.support import tiny_models
from tests.support.device import DEVICE

PROMPT = tuple(range(3, 250)) * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model built for more tokens than any memory holds."""
    home = tmp_path_factory.mktemp("qwen3")
    return tiny_models.build("qwen3", home, head_dim=32, max_position_embeddings=10**9)


@contextmanager
def built_engine(
    folder: Path, allowance: ResourceLimits, prefix_folder: str | None = None
) -> Iterator[WorkerContext]:
    before = mx.set_memory_limit(GB)
    work = build_engine(Load(str(folder), DEVICE, prefix_folder, allowance))
    try:
        yield work
    finally:
        work.scheduler.close()
        work.grammar_queue.close()
        work.close()
        mx.set_memory_limit(before)


def prefix_memory(folder: Path, bits: Literal[16, 8, 4] | None) -> tuple[int, int | None, str, int]:
    """Return the bytes of a cached prompt, KV bits, their reason and the context, as in /health."""
    with built_engine(folder, ResourceLimits(4 * GB, kv_bits=bits)) as work:
        work.scheduler.submit(1, Generation(PROMPT, 4, sampling=Sampling(temperature=0)))
        while not work.scheduler.is_idle:
            work.scheduler.step()
        stats = work.read_stats()
        return stats.prefix_memory_bytes, stats.kv_bits, stats.kv_reason, work.context_tokens


def test_requested_kv_bits_are_used(folder: Path) -> None:
    full, bits, reason, context = prefix_memory(folder, 16)
    assert (bits, reason) == (None, "full precision, as asked for")
    # float32 on a CPU: 32 bits per value; a group of 32 has a scale and a bias of 32 bits.
    for requested, share in ((8, 10 / 32), (4, 6 / 32)):
        quantized, bits, reason, longer = prefix_memory(folder, requested)
        assert (bits, reason) == (requested, f"{requested}-bit, as asked for")
        assert quantized / full == pytest.approx(share, rel=0.01)
        # Scores and copies of a layer count as well, and cost the same or more.
        assert context < longer < context / share
    assert prefix_memory(folder, None)[:2] == (full, None)


def test_model_that_leaves_no_memory_for_a_prompt_does_not_load(folder: Path) -> None:
    with pytest.raises(ValueError, match="leaves no memory for a prompt"):
        build_engine(Load(str(folder), DEVICE, None, ResourceLimits(GB)))


def test_engines_that_share_a_machine_get_equal_parts_of_it(folder: Path, tmp_path: Path) -> None:
    limits = ResourceLimits(8 * GB, prefix_disk_bytes=GB, daily_write_bytes=4 * GB, engines=2)
    with built_engine(folder, limits, str(tmp_path)) as work:
        stats = work.read_stats()
        assert stats.memory_limit_bytes == 4 * GB
        assert stats.prefix_disk_cap_bytes == GB // 2
        assert stats.daily_write_budget_bytes == 2 * GB
    with pytest.raises(ValueError, match=r"each of 8 workers may use.*Choose fewer workers"):
        build_engine(Load(str(folder), DEVICE, None, ResourceLimits(8 * GB, engines=8)))


def test_model_with_unquantizable_heads_runs_in_full_precision(tmp_path: Path) -> None:
    folder = tiny_models.build("qwen3", tmp_path, head_dim=16)
    _, bits, reason, _ = prefix_memory(folder, 8)
    assert (bits, reason) == (None, "full precision: heads of 16 values cannot be quantized")


def test_mlx_memory_limit_is_the_allowance_without_the_process(
    folder: Path,
) -> None:
    with built_engine(folder, ResourceLimits(4 * GB)):
        assert mx.set_memory_limit(GB) == 4 * GB - PROCESS_BYTES


def test_wired_limit_is_capped_at_metals_working_set() -> None:
    device_info = {"max_recommended_working_set_size": 12_713_115_648}
    assert wirable_bytes(14 * GB, device_info) == 12_713_115_648
    assert wirable_bytes(10 * GB, device_info) == wirable_bytes(10 * GB, {}) == 10 * GB
