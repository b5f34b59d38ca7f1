"""Tests batching, caching and restoring with the real embedded model.

The same equalities as in test_families.py, with a vocabulary and weights that mean something.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pensieve.engine.client.launch import worker_variables
from pensieve.engine.model.loading import load_weights
from pensieve.engine.planning.kv_precision import KVPrecision
from tests.mlx.scheduler_bench import Bench, FailingOnce, reference
from tests.support.device import DEVICE
from tests.support.embedded_model import embedded_model_folder

TEXTS = (
    "The river that runs through the old town is called",
    "def add(a, b):\n    return a +",
    "Once upon a time there was a little girl who lived in a village near the forest."
    " Whenever she went out, she wore a red",
)
LONG = (
    "One morning the miller found that the wheel had stopped."
    " He walked along the stream to see what it was. "
) * 14
TOKENS = 6

# Answers a long prompt, writes it to disk, reports and waits to be killed.
WRITER = """
import signal, sys
from pathlib import Path
from pensieve.engine.model.loading import load_weights
from tests.support.device import DEVICE
from tests.mlx.scheduler_bench import Bench
bench = Bench(load_weights(Path(sys.argv[1]), DEVICE), Path(sys.argv[2]))
bench.run(tuple(map(int, sys.argv[3].split(","))), max_tokens=6)
while bench.prefix_cache.spill() is not None or not bench.store.is_idle:
    pass
print("written", flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_model_folder(tmp_path_factory.mktemp("embedded")).folder


@pytest.fixture(scope="module")
def model(folder: Path):
    return load_weights(folder, DEVICE)


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[tuple[int, ...]]:
    return [tokenized(folder, text) for text in TEXTS]


def tokenized(folder: Path, text: str) -> tuple[int, ...]:
    return tuple(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)


@pytest.fixture(scope="module")
def alone(model, prompts: list[tuple[int, ...]]) -> list[list[int]]:
    """mlx-lm's own answer to each prompt."""
    return [reference(model, prompt, TOKENS) for prompt in prompts]


def test_batched_and_cached_answers_equal_single_ones(model, prompts, alone) -> None:
    bench = Bench(model)
    assert bench.run(*prompts, max_tokens=TOKENS) == alone
    second = (*prompts[2], *alone[2], *prompts[0])
    assert bench.run(second, max_tokens=TOKENS) == [reference(model, second, TOKENS)]
    assert bench.cached == [len(prompts[2]) + TOKENS]


def test_removal_or_failure_of_one_sequence_leaves_others_unchanged(model, prompts, alone) -> None:
    answers = Bench(model).run(*prompts, max_tokens=TOKENS, cancel_after={0: 3})
    assert answers[1:] == alone[1:]
    FailingOnce.steps_left = 4
    bench = Bench(model, backend=FailingOnce)
    assert bench.run(*prompts, max_tokens=TOKENS) == alone
    assert FailingOnce.steps_left < 0
    assert not bench.failed


def test_eight_bit_answers_are_the_same_batched_and_alone(model, prompts) -> None:
    precision = KVPrecision(8, group_size=32)
    each = [Bench(model, precision=precision).run(one, max_tokens=TOKENS)[0] for one in prompts]
    assert Bench(model, precision=precision).run(*prompts, max_tokens=TOKENS) == each


def test_answers_in_chunks_and_after_a_kill_equal_the_reference(
    folder: Path, model, tmp_path: Path
) -> None:
    prompt = tokenized(folder, LONG)
    answer = reference(model, prompt, TOKENS)
    numbers = ",".join(map(str, prompt))
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(tmp_path), numbers],
        env=os.environ | worker_variables(DEVICE),
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        os.kill(writer.pid, signal.SIGKILL)
    second = (*prompt, *answer, *prompt[:4])
    after = Bench(model, tmp_path)
    assert after.run(second, max_tokens=TOKENS) == [reference(model, second, TOKENS)]
    assert after.cached == [len(prompt) + TOKENS]
    # Chunks of 64, as the writer's were.
    assert Bench(model).run(prompt, max_tokens=TOKENS) == [answer]
