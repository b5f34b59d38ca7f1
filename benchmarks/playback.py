"""Plays back written answers: the model computes every step, and they replace what it draws.

usage: python -m benchmarks.playback server ANSWERS start --foreground ...

A small or random model copies badly, so its own answers say little about drafts. Here each forward
pass, lookup, read and trim happens as always; only the token that is drawn is replaced by that of a
written answer. A greedy request names its answer by `top_k`, which greedy sampling ignores. The
shipped engine has no such way in: these are programs of the benchmark, which replace the sampler in
their own process. `server` is `pensieve` with a worker that plays back the answers of a JSON file.
"""

# pyright: basic

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pensieve.engine.generation import Sampling
from pensieve.engine.speculation.draft_source import TILE_ROWS

_FIRST_TOP_K = 1_000_000


def top_k_of(answer: int) -> int:
    """Return the `top_k` of a greedy request that gets this answer."""
    return _FIRST_TOP_K + answer


def playback_of(answer: int) -> Sampling:
    return Sampling(temperature=0, top_k=top_k_of(answer))


class _Recital:
    """A `Sampler`. One for each sequence: the rows of a shared one could be of any position."""

    def __init__(self, answer: Sequence[int]) -> None:
        import mlx.core as mx

        self._mx = mx
        # A step may compute positions after the end.
        self._tokens = mx.array([*answer, *[0] * (TILE_ROWS + 1)], dtype=mx.uint32)

    def __call__(self, logits, position: int = 0):
        drawn = self._mx.argmax(logits, axis=-1)
        # The result depends on the drawn tokens, so that they are computed.
        return drawn * 0 + self._tokens[position : position + logits.shape[0]]


@contextlib.contextmanager
def played_back(answers: Sequence[Sequence[int]]) -> Iterator[None]:
    """Play back these answers in this process while the block lasts."""
    from pensieve.engine.model import batch

    make_sampler = batch.make_sampler

    def sampler_of(sampling: Sampling):
        number = sampling.top_k - _FIRST_TOP_K
        return make_sampler(sampling) if number < 0 else _Recital(answers[number])

    batch.make_sampler = sampler_of
    try:
        yield
    finally:
        batch.make_sampler = make_sampler


def serve(answers: str, arguments: Sequence[str]) -> int:
    """Run `pensieve` with these arguments, in this process."""
    from pensieve.cli.app import run as run_command
    from pensieve.engine.client.launch import open_worker
    from pensieve.server import engines

    program = ("-m", "benchmarks.playback", "worker", answers)
    engines.open_worker = partial(open_worker, program=program)
    return run_command(arguments)


def work(answers: str, socket_fd: int) -> None:
    from pensieve.engine.model.mlx_import import import_mlx_lm
    from pensieve.engine.worker import worker

    import_mlx_lm()
    with played_back(json.loads(Path(answers).read_text())):
        worker.main(socket_fd)


if __name__ == "__main__":
    role, file, *rest = sys.argv[1:]
    if role == "worker":
        work(file, int(rest[0]))
    sys.exit(serve(file, rest))
