"""Tokens/s with drafts and without, in turns: in one process, and through HTTP.

usage: python -m benchmarks.speculation [--device cpu|gpu] [--model FOLDER | --shape phi3|wide]
    [--rows rewrite,Edit,…] [--tokens 240] [--rounds 3] [--only process|http] [--cpu-time]
    [--home FOLDER]

*lookup* drafts from prompt and answer, *+ shadow* also from what a client's texts would look like
in the answer (pensieve/prompt/shadow.py). Without a model the embedded one is measured; `--shape`
makes a random one on the spot. `--home` keeps models and processed prompts for the next run.

Answers are written, and played back (playback.py): files of this repository in a Read result with
line numbers, then the file with one name replaced, the Edit calls and the diff of that change, JSON
calls with paths of a listing, its tests, prose (speculation_simulation.py). They copy verbatim, as
a capable model would at best: figures are an upper bound for copying. *own* rows are what the model
itself writes greedily, which often repeats itself. A ratio is the median of each turn's ratio to
its plain answer, since the speed of a shared machine varies within a minute. `--cpu-time` counts
seconds of processor time in one process, with one BLAS thread, where a machine is too busy; the
engine then measures its steps by that clock too.
"""

# pyright: basic

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from benchmarks.engine import Bench, Server, argument_parser, free_port, make_model
from benchmarks.playback import playback_of, played_back, top_k_of
from benchmarks.speculation_simulation import Body, Case, cases, texts
from pensieve import paths
from pensieve.engine.client.launch import worker_variables
from pensieve.engine.generation import Generation, Sampling, Token
from pensieve.engine.protocol import Load
from pensieve.engine.worker.context import WorkerContext
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.load import open_model
from pensieve.settings.resolve import Device
from tests.support import tiny_models
from tests.support.embedded_model import embedded_model_folder

MODES = ("plain", "lookup", "+ shadow")
# Least ratio with all drafts, of one answer, on two cores in float32.
TARGETS = {"rewrite": 3.0, "Edit": 2.0, "JSON": 1.4, "prose": 0.98}
TOGETHER = ("rewrite, code block", "2 Edit calls", "9 JSON calls", "prose")
# Prompts that an engine on a CPU has processed: minutes there.
PREFIXES = "prefixes"
_GREEDY = Sampling(temperature=0)


@dataclass(frozen=True)
class Row:
    """Answers that are generated together. A number is that of a written answer."""

    name: str
    numbers: tuple[int, ...]
    is_own: bool = False  # the model's own answers instead of the written ones


@dataclass(frozen=True)
class Run:
    """Answers of one row in one turn."""

    answers: tuple[object, ...]  # tokens or text
    ends_s: tuple[float, ...]  # when each was finished, since all were sent
    rate: float  # tokens/s of all
    tokens_per_step: float = 0.0  # of one answer; 0 if unknown


def rows_of(names: Sequence[str], wanted: Sequence[str]) -> list[Row]:
    """Return the rows whose names contain one of `wanted`; *own* and *four* ones by these words."""
    alone = [Row(name, (number,)) for number, name in enumerate(names)]
    own = [Row(f"own, {names[number]}", (number,), is_own=True) for number in (0, len(names) - 1)]
    four = tuple(number for number, name in enumerate(names) if name in TOGETHER)
    prose = (len(names) - 1,) * 4
    together = [Row("four: rewrite, Edit, JSON, prose", four), Row("four times prose", prose)]
    return [
        *(row for row in alone if any(part in row.name for part in wanted)),
        *(own if "own" in wanted else ()),
        *(together if "four" in wanted else ()),
    ]


# In one process.


class Process:
    """Two engines on the same weights: one without drafts, one with."""

    def __init__(
        self,
        load: Load,
        written: Sequence[Case],
        rows: Sequence[Row],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._load, self._written, self._clock = load, written, clock
        used = (written[number].prompt for row in rows for number in row.numbers)
        self._prompts = dict.fromkeys(map(tuple, used))
        self._engines: dict[bool, WorkerContext] = {}

    def __enter__(self) -> "Process":
        for has_drafts in (False, True):
            self._engines[has_drafts] = self._engine(has_drafts=has_drafts)
        return self

    def _engine(self, *, has_drafts: bool) -> WorkerContext:
        from pensieve.engine.model.mlx_import import import_mlx_lm

        import_mlx_lm()
        from pensieve.engine.worker.build import build_engine
        from pensieve.engine.worker.worker import spill_rest

        engine = build_engine(replace(self._load, has_speculation=has_drafts))
        for prompt in self._prompts:
            run_together(engine, [Generation(prompt, 2, sampling=_GREEDY)])
        # The second engine reads the processed prompts.
        spill_rest(engine.spill)
        return engine

    def __exit__(self, *_: object) -> None:
        for engine in self._engines.values():
            engine.close()
            engine.grammar_queue.close()

    def run(self, row: Row, mode: str) -> Run:
        generations = [self._generation(row, number, mode) for number in row.numbers]
        return run_together(self._engines[mode != "plain"], generations, self._clock)

    def _generation(self, row: Row, number: int, mode: str) -> Generation:
        case = self._written[number]
        return Generation(
            tuple(case.prompt),
            len(case.answer),
            sampling=_GREEDY if row.is_own else playback_of(number),
            hints=tuple(map(tuple, case.shadows)) if mode == "+ shadow" else (),
        )


def run_together(
    engine: WorkerContext,
    generations: Sequence[Generation],
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Generate together; the rate counts from when every answer has begun."""
    scheduler = engine.scheduler
    tokens: list[list[int]] = [[] for _ in generations]
    ends_s = [0.0] * len(generations)
    sent_s = began_s = clock()
    before, steps, is_begun = 0, 0, False
    for key, generation in enumerate(generations):
        scheduler.submit(key, generation)
    while not scheduler.is_idle:
        events = scheduler.step()
        now_s = clock()
        for key, event in events:
            if isinstance(event, Token):
                tokens[key].append(event.token_id)
                ends_s[key] = now_s
        steps += is_begun
        if not is_begun and all(tokens):
            is_begun, began_s, before = True, now_s, sum(map(len, tokens))
    counted = sum(map(len, tokens)) - before
    return Run(
        tuple(map(tuple, tokens)),
        tuple(end_s - sent_s for end_s in ends_s),
        counted / max(max(ends_s) - began_s, 1e-9),
        counted / max(steps, 1) / len(generations),
    )


# Through HTTP.


class Http:
    """Two servers, one without drafts. Their workers play back as well."""

    def __init__(
        self,
        bench: Bench,
        bodies: Sequence[Body],
        answers: Sequence[Sequence[int]],
        rows: Sequence[Row],
    ) -> None:
        self._bench, self._bodies, self._answers = bench, bodies, answers
        self._used = sorted({number for row in rows for number in row.numbers})
        self._running = contextlib.ExitStack()
        self._servers: dict[str, Server] = {}

    def __enter__(self) -> "Http":
        file = self._bench.home / "answers.json"
        file.write_text(json.dumps([list(answer) for answer in self._answers]))
        for mode, setting in (("plain", "off"), ("+ shadow", "auto")):
            self._servers[mode] = self._running.enter_context(self._server(file, setting))
            for number in self._used:
                self.run(Row("", (number,), is_own=True), mode, max_tokens=2)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _server(self, answers: Path, speculation: str) -> contextlib.AbstractContextManager[Server]:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.playback", "server", str(answers)]
        command += ["start", "--foreground", "--port", str(port)]
        command += ["--model", str(self._bench.folder), "--device", self._bench.device]
        own = paths.under_home(self._bench.home / speculation)
        processed = self._bench.home / PREFIXES
        if processed.exists():
            shutil.copytree(processed, own.prefixes, dirs_exist_ok=True)
        home = {"PENSIEVE_HOME": str(self._bench.home / speculation)}
        environment = os.environ | home | {"PENSIEVE_SPECULATION": speculation}
        return self._bench.running(speculation, command, port, "/v1/messages", environment)

    def run(self, row: Row, mode: str, max_tokens: int | None = None) -> Run:
        return asyncio.run(self._run(row, self._servers[mode], max_tokens))

    async def _run(self, row: Row, server: Server, max_tokens: int | None) -> Run:
        bodies = (self._body(row, number, max_tokens) for number in row.numbers)
        streams = await asyncio.gather(*(server.send(body) for body in bodies))
        began_s = min(stream.ttft_s for stream in streams)
        end_s = max(stream.end_s for stream in streams)
        tokens = sum(stream.output_tokens for stream in streams)
        ends_s = tuple(stream.end_s for stream in streams)
        texts = tuple(stream.text for stream in streams)
        return Run(texts, ends_s, (tokens - 1) / max(end_s - began_s, 1e-9))

    def _body(self, row: Row, number: int, max_tokens: int | None) -> Body:
        own = {"max_tokens": max_tokens or len(self._answers[number]), "stream": True}
        choice = {} if row.is_own else {"top_k": top_k_of(number)}
        return self._bodies[number] | own | {"temperature": 0} | choice


# Turns and tables.


def turns(runner: Process | Http, row: Row, modes: Sequence[str], rounds: int) -> dict:
    """Return the runs of each mode, measured in turns."""
    runs: dict[str, list[Run]] = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode in modes:
            runs[mode].append(runner.run(row, mode))
    return runs


def median_ratio(runs: Sequence[Run], plain: Sequence[Run]) -> float:
    return statistics.median(one.rate / other.rate for one, other in zip(runs, plain, strict=True))


def worst_wait(runs: Sequence[Run], plain: Sequence[Run]) -> float:
    """Return how much later than without drafts an answer of the row is finished, at worst."""
    return statistics.median(
        max(end / plain_end for end, plain_end in zip(one.ends_s, other.ends_s, strict=True))
        for one, other in zip(runs, plain, strict=True)
    )


def line(row: Row, runs: dict[str, list[Run]]) -> str:
    plain = runs["plain"]
    cells = [f"{statistics.median(run.rate for run in plain):9.1f}"]
    for mode in list(runs)[1:]:
        own = runs[mode]
        ratio = median_ratio(own, plain)
        per_step = statistics.median(run.tokens_per_step for run in own)
        spread = " ".join(
            f"{one.rate / other.rate:.2f}" for one, other in zip(own, plain, strict=True)
        )
        cells.append(f"{statistics.median(run.rate for run in own):9.1f}{ratio:7.2f}")
        cells.append(f"{per_step:6.1f}" if per_step else "")
        cells.append(f" ({spread})")
    end = f"{worst_wait(runs['+ shadow'], plain):8.2f}" if len(row.numbers) > 1 else ""
    return f"{row.name:34}" + "".join(cells) + end + remark(row, runs)


def remark(row: Row, runs: dict[str, list[Run]]) -> str:
    if len({run.answers for each in runs.values() for run in each}) > 1:
        return "  answers differ"
    target = next((least for part, least in TARGETS.items() if part in row.name), 0.0)
    is_measured = not row.is_own and len(row.numbers) == 1
    missed = is_measured and median_ratio(runs["+ shadow"], runs["plain"]) < target
    return f"  below {target}" if missed else ""


def measure(runner: Process | Http, title: str, rows: Sequence[Row], rounds: int) -> None:
    modes = MODES if isinstance(runner, Process) else (MODES[0], MODES[2])
    print(f"\n{title}: tokens/s, ratio to plain, tokens a step (each turn's ratio), longest wait")
    print(f"{'':34}{'plain':>9}   {'   '.join(modes[1:])}")
    for row in rows:
        print(line(row, turns(runner, row, modes, rounds)), flush=True)


# Models.


def retokenized(folder: Path) -> Path:
    """Give a random model of Phi-3's vocabulary a tokenizer that knows this repository's texts.

    That of tiny models knows hardly more than characters, of which copies would be too long.
    """
    from tokenizers import AddedToken

    sources = (Path(__file__).parent.parent / "pensieve").rglob("*.py")
    corpus = (file.read_text(encoding="utf-8") for file in sources)
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=False, corpus=corpus, size=31_000)
    # Phi-3's control tokens follow 32000 others and <|endoftext|>, which this tokenizer has.
    unused = range(tokenizer.get_vocab_size(), 32_001)
    tokenizer.add_tokens(["<s>", *(f"<unused{number}>" for number in unused[1:])])
    for text in tiny_models.PHI3_ADDED[1:]:
        tokenizer.add_tokens([AddedToken(text, special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def model_of(arguments: argparse.Namespace, home: Path) -> ModelFolder:
    if arguments.shape is None and arguments.model is None:
        return embedded_model_folder(home)
    folder = arguments.model
    if folder is None:
        folder = home / arguments.shape
        if not (folder / "model.safetensors").exists():
            make_model(arguments.shape, folder)
            if arguments.shape != "tiny":
                retokenized(folder)
    return ModelFolder(folder.name, str(folder), folder)


def preload(device: Device, *, is_cpu_time: bool) -> None:
    """Start this program again with the worker's variables: OpenBLAS is loaded before MLX's."""
    # Idle BLAS threads spin, which processor time would count.
    threads = {"OPENBLAS_NUM_THREADS": "1"} if is_cpu_time else {}
    variables = worker_variables(device) | threads
    missing = {name: value for name, value in variables.items() if os.environ.get(name) != value}
    if missing:
        arguments = [sys.executable, "-m", "benchmarks.speculation", *sys.argv[1:]]
        os.execve(sys.executable, arguments, os.environ | missing)


@contextlib.contextmanager
def home_of(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def parse() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.set_defaults(shape=None)
    parser.add_argument("--rows", default="rewrite,Edit,JSON,diff,tests,prose,own,four")
    parser.add_argument("--tokens", default=240, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--only", choices=["process", "http"])
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--home", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    device = cast("Device", arguments.device)
    # What the measured step times mean for drafts.
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("pensieve.engine").setLevel(logging.INFO)
    preload(device, is_cpu_time=arguments.cpu_time)
    with home_of(arguments.home) as home:
        model = model_of(arguments, home)
        written = list(texts())
        found = [
            replace(case, answer=case.answer[: arguments.tokens])
            for case in cases(open_model(model), written)
        ]
        rows = rows_of([case.name for case in found], arguments.rows.split(","))
        if arguments.only != "http":
            prefixes = str(home / PREFIXES) if device == "cpu" else None
            load = Load(str(model.folder), device, prefixes)
            clock = time.perf_counter
            if arguments.cpu_time:
                # The engine is imported later: it prices its steps by this clock as well.
                clock = time.monotonic = time.process_time
            with (
                played_back([case.answer for case in found]),
                Process(load, found, rows, clock) as process,
            ):
                measure(process, "in one process", rows, arguments.rounds)
        if arguments.only != "process":
            bench = Bench(model.folder, device, home)
            bodies = [body for _, body, _ in written]
            with Http(bench, bodies, [case.answer for case in found], rows) as http:
                measure(http, "through HTTP", rows, arguments.rounds)


if __name__ == "__main__":
    main()
