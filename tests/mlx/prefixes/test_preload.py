"""Pinned prefixes come back from disk before the first request, and answers over them are exact."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pensieve.engine.client.launch import worker_variables
from pensieve.engine.disk.block_store import StoreLimits
from pensieve.engine.planning.kv_precision import KVPrecision
from tests.mlx.scheduler_bench import Bench, prompt_of, reference
from tests.support import tiny_architectures
from tests.support.device import DEVICE

PINNED = 700
PROJECT, OTHER_PROJECT = prompt_of(PINNED), prompt_of(PINNED, 7)


def opening(project: tuple[int, ...], question: int) -> tuple[int, ...]:
    return (*project, 100 + question, *prompt_of(90, 11))


def remember(model, folder: Path, *projects: tuple[int, ...]) -> None:
    """Answer a question in each project, and write it to disk before the next."""
    bench = Bench(model, folder)
    for project in projects:
        bench.run(opening(project, 0), max_tokens=4, pinned_tokens=PINNED)
        bench.spill()
    bench.close()


def in_memory(bench: Bench) -> list[tuple[int, ...]]:
    return [tuple(prefix.tokens) for prefix in bench.prefixes.sequences()]


@pytest.mark.parametrize("pinned", [PINNED, 256, 768])
@pytest.mark.parametrize("family", tiny_architectures.FAMILIES)
def test_answer_over_a_preloaded_prefix_equals_a_cold_one(
    family: str, pinned: int, tmp_path: Path
) -> None:
    model = tiny_architectures.build(family)
    project = prompt_of(pinned)
    before = Bench(model, tmp_path)
    before.run(opening(project, 0), max_tokens=4, pinned_tokens=pinned)
    before.close()
    after = Bench(model, tmp_path)
    after.preload()
    assert in_memory(after) == [project]
    second = opening(project, 1)
    for file in tmp_path.iterdir():
        file.unlink()  # the answer reads no file
    assert after.run(second, pinned_tokens=pinned) == [reference(model, second)]
    assert after.cached == [pinned]
    after.prefix_cache.close()


@pytest.mark.parametrize("family", tiny_architectures.FAMILIES)
def test_pinned_prefix_is_restored_for_another_question_without_a_preload(
    family: str, tmp_path: Path
) -> None:
    model = tiny_architectures.build(family)
    remember(model, tmp_path, PROJECT)
    after = Bench(model, tmp_path)
    second = opening(PROJECT, 1)
    assert after.run(second, pinned_tokens=PINNED) == [reference(model, second)]
    assert after.cached == [PINNED]
    after.close()


@pytest.mark.parametrize("family", tiny_architectures.FAMILIES)
def test_pinned_prefix_outlives_the_conversations_that_continue_from_disk(
    family: str, tmp_path: Path
) -> None:
    model = tiny_architectures.build(family)
    remember(model, tmp_path, PROJECT)
    later = Bench(model, tmp_path)
    later.run(opening(PROJECT, 1), max_tokens=4, pinned_tokens=PINNED)
    later.close()
    after = Bench(model, tmp_path)
    after.preload()
    assert in_memory(after) == [PROJECT]
    after.close()


def test_preload_writes_nothing_and_its_prefixes_count_as_stored(tmp_path: Path) -> None:
    model = tiny_architectures.build("llama")
    remember(model, tmp_path, PROJECT, OTHER_PROJECT)
    files = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    after = Bench(model, tmp_path)
    after.preload()
    assert in_memory(after) == [OTHER_PROJECT, PROJECT]
    after.spill()
    after.prefix_cache.evict_stored()
    assert in_memory(after) == []
    after.close()
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files


def test_project_used_last_is_preloaded_first_also_if_it_was_only_used_from_memory(
    tmp_path: Path,
) -> None:
    model = tiny_architectures.build("llama")
    bench = Bench(model, tmp_path)
    for project in (PROJECT, OTHER_PROJECT, PROJECT):
        bench.run(opening(project, 0), max_tokens=4, pinned_tokens=PINNED)
        bench.spill()
        while not bench.store.is_idle:  # its files would be newer than the next use
            pass
    bench.close()
    after = Bench(model, tmp_path)
    while not in_memory(after):
        assert after.prefix_cache.preload() is not None
    assert in_memory(after) == [PROJECT]
    after.close()


def test_pinned_prefix_in_use_is_evicted_from_disk_after_older_conversations(
    tmp_path: Path,
) -> None:
    model = tiny_architectures.build("llama")
    limits = StoreLimits(cap_bytes=13_000_000, daily_bytes=10**9)
    bench = Bench(model, tmp_path, limits=limits)
    for question in range(12):
        bench.run((*PROJECT, *prompt_of(600, 13 + question)), max_tokens=4, pinned_tokens=PINNED)
        bench.spill()
    bench.close()
    after = Bench(model, tmp_path, limits=limits)
    after.preload()
    assert in_memory(after) == [PROJECT]
    after.close()


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "renamed"])
def test_damaged_file_costs_only_its_prefix_and_no_answer(damage: str, tmp_path: Path) -> None:
    model = tiny_architectures.build("llama")
    remember(model, tmp_path, PROJECT)
    names = sorted(tmp_path.iterdir())
    remember(model, tmp_path, OTHER_PROJECT)
    for number, file in enumerate(names):
        content = file.read_bytes()
        match damage:
            case "flipped":
                file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
            case "truncated":
                file.write_bytes(content[: 50 * number])
            case "missing":
                file.unlink()
            case _:
                file.rename(file.with_name(f"{number}-{'p' if number % 2 else ''}{number - 1}.kv"))
    after = Bench(model, tmp_path)
    after.preload()
    assert in_memory(after) == [OTHER_PROJECT]
    second = opening(PROJECT, 1)
    assert after.run(second) == [reference(model, second)]
    after.close()


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_prefixes_of_another_fingerprint_or_precision_are_not_preloaded(
    family: str, tmp_path: Path
) -> None:
    model = tiny_architectures.build(family)
    others = {
        "fingerprint": partial(Bench, fingerprint=b"another"),
        "precision": partial(Bench, precision=KVPrecision(8, group_size=32)),
    }
    for name, other in others.items():
        remember(model, tmp_path / name, PROJECT)
        after = other(model, tmp_path / name)
        after.preload()
        assert in_memory(after) == []
        second = opening(PROJECT, 1)
        assert after.run(second) == other(model).run(second)
        after.close()


def test_nothing_is_preloaded_with_a_disk_cap_of_0(tmp_path: Path) -> None:
    model = tiny_architectures.build("llama")
    remember(model, tmp_path, PROJECT)
    after = Bench(model, tmp_path, limits=StoreLimits(cap_bytes=0, daily_bytes=10**9))
    after.preload()
    assert in_memory(after) == []
    after.close()


def test_files_in_a_circle_are_no_prefix(tmp_path: Path) -> None:
    model = tiny_architectures.build("llama")
    for name in ("a-b.kv", "b-a.kv", "a-pb.kv", "b-p.kv", "-p.kv", "p.kv", "-.kv"):
        (tmp_path / name).write_bytes(b"pensieve kv 2\n")
    after = Bench(model, tmp_path)
    after.preload()
    assert in_memory(after) == []
    after.close()


# Preloads and is killed by its parent in the middle.
READER = """
import sys
from pathlib import Path
from tests.support import tiny_architectures
from tests.mlx.scheduler_bench import Bench
bench = Bench(tiny_architectures.build(sys.argv[1]), Path(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    bench.prefix_cache.preload()
print("read", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_worker_killed_in_a_preload_loses_nothing_for_the_next(family: str, tmp_path: Path) -> None:
    model = tiny_architectures.build(family)
    remember(model, tmp_path, PROJECT, OTHER_PROJECT)
    # After the first part of the second prefix.
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, family, str(tmp_path), "6"],
        env=os.environ | worker_variables(DEVICE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"read\n"
        reader.send_signal(signal.SIGKILL)
    after = Bench(model, tmp_path)
    after.preload()
    assert in_memory(after) == [OTHER_PROJECT, PROJECT]
    second = opening(PROJECT, 1)
    assert after.run(second) == [reference(model, second)]
    after.close()
