"""Tests that a SIGKILL while prefixes are written never causes a wrong answer or a failed start.

A few kills by default; `PENSIEVE_CRASHES=200 pytest tests/mlx/test_crash.py` for the full
measurement: 200 of llama, 20 of each other family. Each has another kind of cache.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.engine.client.launch import worker_variables
from tests.mlx.scheduler_bench import Bench, prompt_of, reference
from tests.support import tiny_architectures
from tests.support.device import DEVICE

CRASHES = int(os.environ.get("PENSIEVE_CRASHES", "2"))

# Writes conversation after conversation and reports each; the parent kills it in between.
WRITER = """
import sys
from pathlib import Path
from tests.support import tiny_architectures
from tests.mlx.scheduler_bench import Bench, prompt_of
from tests.mlx.test_crash import question
bench = Bench(tiny_architectures.build(sys.argv[1]), Path(sys.argv[2]))
for turn in range(10**6):
    bench.run(question(int(sys.argv[3]), turn), max_tokens=4)
    print(turn, flush=True)
    bench.spill()
"""
MIN_TURNS = 7


def question(crash: int, turn: int) -> tuple[int, ...]:
    """Return a prompt of one writer process; the first few differ from those of six others."""
    return prompt_of(600 + turn % 40, 1 + (crash + turn) % MIN_TURNS)


def kill_while_writing(family: str, folder: Path, crash: int) -> int:
    """Return the number of conversations that the killed writer may have begun to write."""
    reports = random.Random(crash).randint(1, 4)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, family, str(folder), str(crash)],
        env=os.environ | worker_variables(DEVICE),
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        for _ in range(reports):
            writer.stdout.readline()
        # In the milliseconds after a report: often in the middle of a file.
        for _ in range(random.Random(crash).randint(0, 40_000)):
            pass
        writer.send_signal(signal.SIGKILL)
        return reports + len(writer.stdout.readlines())


# Each kind of cache: full attention in blocks, a sliding window, mlx-lm's own, a state space.
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gemma2", "qwen3_next"])
def test_start_after_any_kill_answers_correctly_from_the_cache(family: str, tmp_path: Path) -> None:
    model = tiny_architectures.build(family)
    expected: dict[tuple[int, ...], list[int]] = {}
    warm = 0
    crashes = CRASHES if family == "llama" else max(1, CRASHES // 10)
    for crash in range(crashes):
        turns = kill_while_writing(family, tmp_path, crash)
        bench = Bench(model, tmp_path)
        for turn in range(turns):
            first = question(crash, turn)
            if first not in expected:
                answer = reference(model, first, 4)
                expected[first] = [*answer, *reference(model, (*first, *answer, 5), 4)]
            second = (*first, *expected[first][:4], 5)
            assert bench.run(second, max_tokens=4) == [expected[first][4:]]
            warm += bench.cached[0] > 0
        bench.prefix_cache.close()
    assert warm >= crashes


def check_answers_after(tmp_path: Path, damage) -> None:
    model = tiny_architectures.build("llama")
    before = Bench(model, tmp_path)
    before.run(prompt_of(600), max_tokens=4)
    before.close()
    files = sorted(tmp_path.iterdir())
    whole = {file: file.read_bytes() for file in files}
    expected = reference(model, (*prompt_of(600), 5), 4)
    for number in range(CRASHES * 4):
        for file, content in whole.items():
            file.write_bytes(content)
        chosen = random.Random(number)
        victim = chosen.choice(files)
        victim.write_bytes(damage(whole[victim], chosen))
        after = Bench(model, tmp_path)
        assert after.run((*prompt_of(600), 5), max_tokens=4) == [expected]
        after.prefix_cache.close()


def test_flipped_bit_never_causes_a_wrong_answer(tmp_path: Path) -> None:
    def flip(content: bytes, chosen: random.Random) -> bytes:
        damaged = bytearray(content)
        damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
        return bytes(damaged)

    check_answers_after(tmp_path, flip)


def test_truncation_never_causes_a_wrong_answer(tmp_path: Path) -> None:
    check_answers_after(tmp_path, lambda content, chosen: content[: chosen.randrange(len(content))])


def test_folder_emptied_at_runtime_is_a_miss(tmp_path: Path) -> None:
    model = tiny_architectures.build("llama")
    bench = Bench(model, tmp_path)
    bench.run(prompt_of(600), max_tokens=4)
    bench.close()
    bench = Bench(model, tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    assert bench.prefix_cache.match(prompt_of(600)) > 0
    assert bench.restored(prompt_of(600)) is None
    assert bench.prefix_cache.match(prompt_of(600)) == 0
    bench.prefix_cache.close()
