"""Processes killed with SIGKILL at random moments of writing prefixes to disk: never a wrong answer, never a failed start.

Four kills in the ordinary run; `PENSIEVE_CRASHES=200 pytest tests/mlx/test_crash.py` for the whole measure.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from pensieve.engine.prefix_cache import PrefixCache
from tests.mlx import architectures
from tests.mlx.bench import Bench, prompt_of, reference

CRASHES = int(os.environ.get("PENSIEVE_CRASHES", "4"))

# Writes conversation after conversation, telling of each; the parent kills it somewhere in between.
WRITER = """
import sys
from pathlib import Path
from tests.mlx import architectures
from tests.mlx.bench import Bench, prompt_of
model = architectures.build("llama")
bench = Bench(model, Path(sys.argv[1]))
for turn in range(10**6):
    bench.run(prompt_of(600 + turn % 40, 1 + (int(sys.argv[2]) + turn) % 7), max_tokens=4)
    print(turn, flush=True)
    while bench.archive.spill(bench.prefixes) is not None:
        pass
"""


def killed_in_writing(folder: Path, crash: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(crash)], stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        for _ in range(random.Random(crash).randint(1, 4)):
            writer.stdout.readline()
        # Somewhere in the milliseconds after a word: in the middle of a file as likely as not.
        for _ in range(random.Random(crash).randint(0, 40_000)):
            pass
        writer.send_signal(signal.SIGKILL)


def test_after_any_kill_the_next_start_answers_right_and_warm(tmp_path: Path) -> None:
    model = architectures.build("llama")
    expected = {seed: reference(model, (*prompt_of(600, seed), 5), 4) for seed in range(1, 8)}
    warm = 0
    for crash in range(CRASHES):
        killed_in_writing(tmp_path, crash)
        bench = Bench(model, tmp_path)
        for seed, answer in expected.items():
            assert bench.run((*prompt_of(600, seed), 5), max_tokens=4) == [answer]
            warm += bench.cached[0] > 0
        assert bench.archive is not None
        bench.archive.close()
    assert warm >= CRASHES * 2


def damaged_answers(tmp_path: Path, damage) -> None:
    model = architectures.build("llama")
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
        assert after.archive is not None
        after.archive.close()


def test_a_flipped_bit_anywhere_never_makes_a_wrong_answer(tmp_path: Path) -> None:
    def flip(content: bytes, chosen: random.Random) -> bytes:
        damaged = bytearray(content)
        damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
        return bytes(damaged)

    damaged_answers(tmp_path, flip)


def test_a_truncation_anywhere_never_makes_a_wrong_answer(tmp_path: Path) -> None:
    damaged_answers(tmp_path, lambda content, chosen: content[: chosen.randrange(len(content))])


def test_a_folder_that_was_emptied_while_we_ran_is_a_miss(tmp_path: Path) -> None:
    model = architectures.build("llama")
    bench = Bench(model, tmp_path)
    bench.run(prompt_of(600), max_tokens=4)
    assert bench.archive is not None
    while bench.archive.spill(bench.prefixes) is not None:
        pass
    bench.archive.close()
    archive = Bench(model, tmp_path).archive
    assert archive is not None
    for file in tmp_path.iterdir():
        file.unlink()
    hashes = PrefixCache(b"test").hashes(prompt_of(600))
    assert archive.held_tokens(hashes, prompt_of(600)) > 0
    assert archive.restore(hashes, prompt_of(600)) is None
    archive.close()
