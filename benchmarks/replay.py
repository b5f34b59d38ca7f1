"""First token, cache hits and freezes of servers under the traffic of a coding agent.

usage: python -m benchmarks.replay [--wire anthropic|openai] [--scale 0.1] [--session FILE]
    [--device cpu|gpu] [--model FOLDER | --shape tiny|phi3|wide] [--home FOLDER]
    [--servers pensieve,mlx_lm.server] [--start NAME=COMMAND]... [--url URL]...
    [--model-name NAME] [--key KEY] [--seed 0] [--json FILE]
Each server gets the same session: launches, turns with tool results, a title next to a launch,
sub-agents during an answer, a compaction, SIGKILL (benchmarks/agent_traffic/session.py says how its
shape is written). All servers are loaded and go through it in turns, step by step. `--scale`
multiplies lengths and pauses. The default model is smollm2-135m in --home, in float32 on the CPU.

`--start` starts another server: COMMAND has {port}, and {model} for the model's folder. `--url`
measures a running one, which is not killed. mlx_lm.server speaks OpenAI's API alone.
"""

# pyright: basic

import argparse
import asyncio
import contextlib
import http.client
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.agent_traffic.session import (
    PATHS,
    SESSION,
    Client,
    Conversation,
    Step,
    Turn,
    Wire,
    body_of,
    headers_of,
    read_turns,
    steps_of,
)
from benchmarks.agent_traffic.tables import Answer, Run, report, summary, turns_table
from benchmarks.engine import (
    KEY,
    Bench,
    Server,
    Stream,
    argument_parser,
    calibrate,
    free_port,
    kill_with_children,
    make_model,
    payloads,
    record,
    table,
    words,
)
from pensieve.engine.client.launch import worker_variables
from tests.support.embedded_model import embedded_model_folder

Launch = Callable[[], AbstractContextManager[Server]]
_WARM_UP = Conversation(("Answer briefly.",), ("Hello!",))


@dataclass(frozen=True)
class Subject:
    """A server to measure."""

    name: str
    wire: Wire
    launch: Launch
    model_name: str = ""  # empty: the first one that the server lists
    is_killed: bool = True


class Replay:
    """Puts one server through a session. Owns the server's process."""

    def __init__(self, subject: Subject, client: Client) -> None:
        self.run = Run(subject.name)
        self._subject, self._client = subject, client
        self._running = contextlib.ExitStack()
        self._is_after_kill = False

    def __enter__(self) -> "Replay":
        self._launch()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _launch(self) -> None:
        server = self._running.enter_context(self._subject.launch())
        self._server = replace(server, path=PATHS[self._subject.wire])
        self._model = self._subject.model_name or listed_model(self._server)

    async def warm_up(self) -> None:
        """Use the server once: kernels compile at first use."""
        await self._server.send(body_of(self._subject.wire, _WARM_UP, 8, self._model))

    async def step(self, step: Step) -> None:
        """Send the turns of a step, and kill the server if the step says so."""
        await asyncio.sleep(step.pause_s)
        self.run.answers += await self._together(step.turns)
        self._is_after_kill = False
        if step.kill_after_s is not None and self._subject.is_killed:
            await asyncio.sleep(step.kill_after_s)
            self._kill()

    async def _together(self, turns: tuple[Turn, ...]) -> list[Answer]:
        tasks: list[asyncio.Task[Answer]] = []
        begun = asyncio.Event()
        for turn, following in zip(turns, (*turns[1:], None), strict=True):
            if turn.starts == "during":
                await begun.wait()
            begun = asyncio.Event()
            is_joined = following is not None and following.starts == "during"
            tasks.append(asyncio.create_task(self._answer(turn, begun if is_joined else None)))
        return list(await asyncio.gather(*tasks))

    async def _answer(self, turn: Turn, begun: asyncio.Event | None) -> Answer:
        """Send one turn; set `begun` at the first token, or if there is none."""
        prompt = self._client.ask(turn)
        before = Answer(turn, prompt, is_after_kill=self._is_after_kill)
        try:
            stream = await self._send(turn, prompt.conversation, begun)
        except (AssertionError, OSError, http.client.HTTPException) as error:
            print(f"{self.run.name}: {turn.label}: {error!r:.300}", file=sys.stderr)
            self._client.answered(turn, "")
            return replace(before, error=repr(error))
        finally:
            if begun:
                begun.set()
        self._client.answered(turn, stream.text)
        return measured(before, stream, is_joined=begun is not None)

    async def _send(
        self, turn: Turn, conversation: Conversation, begun: asyncio.Event | None
    ) -> Stream:
        body = body_of(self._subject.wire, conversation, turn.answer_tokens, self._model)
        server = replace(self._server, headers={**self._server.headers, **headers_of(turn)})
        return await server.send(body, watch_for_token(begun) if begun else None)

    def _kill(self) -> None:
        """Kill the server and start it again."""
        kill_with_children(self._server.pid)
        self._running.close()
        started_s = time.perf_counter()
        self._launch()
        self.run.restarts_s.append(time.perf_counter() - started_s)
        self._is_after_kill = True


def measured(answer: Answer, stream: Stream, *, is_joined: bool) -> Answer:
    return replace(
        answer,
        first_token_s=stream.ttft_s,
        end_s=stream.end_s,
        prompt_tokens=stream.prompt_tokens,
        cached_tokens=stream.cached_tokens,
        answer_tokens=stream.output_tokens,
        freeze_s=stream.longest_gap_s if is_joined else None,
    )


def watch_for_token(begun: asyncio.Event) -> Callable[[bytes], None]:
    """Return a function that takes pieces of a stream, in any thread, and sets `begun`."""
    loop = asyncio.get_running_loop()

    def watch(piece: bytes) -> None:
        if begun.is_set():
            return
        stream = Stream()
        for at_s, payload in payloads([(0.0, piece)]):
            record(payload, stream, at_s)
        if stream.arrivals_s:
            loop.call_soon_threadsafe(begun.set)

    return watch


def listed_model(server: Server) -> str:
    """Return the first model of the server's list."""
    models = httpx.get(server.url + "/v1/models", headers=dict(server.headers)).json()["data"]
    return models[0]["id"]


# Servers to measure.


@contextlib.contextmanager
def started(bench: Bench, name: str, command: str) -> Iterator[Server]:
    """Start another server by its command, without caches of earlier runs."""
    port = free_port()
    arguments = [
        part.replace("{port}", str(port)).replace("{model}", str(bench.folder))
        for part in shlex.split(command)
    ]
    environment = bench.environment | worker_variables(bench.device) | {"HOME": str(bench.home)}
    with bench.running(name, arguments, port, "", environment) as server:
        yield server


def key_headers(key: str | None) -> dict[str, str]:
    return {"x-api-key": key, "authorization": f"Bearer {key}"} if key else KEY


def subjects(arguments: argparse.Namespace, bench: Bench) -> list[Subject]:
    wire, model_name = arguments.wire, arguments.model_name
    own = {
        "pensieve": Subject("pensieve", wire, bench.pensieve, "default_model"),
        "mlx_lm.server": Subject("mlx_lm.server", "openai", bench.mlx_lm_server, "default_model"),
    }
    found = [own[name] for name in arguments.servers.split(",") if name]
    for text in arguments.start:
        name, _, command = text.partition("=")
        found.append(Subject(name, wire, partial(started, bench, name, command), model_name))
    for url in arguments.url:
        server = Server(urlsplit(url).netloc, url, "", None, key_headers(arguments.key))
        launch = partial(contextlib.nullcontext, server)
        found.append(Subject(server.name, wire, launch, model_name, is_killed=False))
    return found


def bench_of(arguments: argparse.Namespace, temporary: Path) -> Bench:
    """Return what starts servers. Without any to start, it needs no model."""
    if not (arguments.servers or arguments.start or arguments.model):
        return Bench(temporary, arguments.device, temporary)
    folder = model_folder(arguments, temporary)
    calibrate(folder)
    return Bench(folder, arguments.device, temporary)


def model_folder(arguments: argparse.Namespace, temporary: Path) -> Path:
    if arguments.model:
        return arguments.model
    if arguments.shape:
        return make_model(arguments.shape, temporary / "model")
    folder = embedded_model_folder(arguments.home).folder
    return float32_model(folder, arguments.home) if arguments.device == "cpu" else folder


def float32_model(source: Path, home: Path) -> Path:
    """Return a model without quantization: MLX's quantized products are slow on CPUs."""
    folder = home / f"{source.name}-float32"
    if not folder.exists():
        command = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", str(source)]
        command += ["--mlx-path", str(folder), "--dequantize", "--dtype", "float32"]
        subprocess.run(command, check=True)
    return folder


# The session.


@contextlib.contextmanager
def begun(found: list[Subject], seed: int) -> Iterator[list[Replay]]:
    """Start all servers."""
    with contextlib.ExitStack() as running:
        yield [running.enter_context(Replay(subject, Client(words, seed))) for subject in found]


async def play(replays: list[Replay], steps: list[Step]) -> None:
    """Put all servers through the session, in turns."""
    for replay in replays:
        await replay.warm_up()
    for number, step in enumerate(steps, 1):
        print(f"step {number} of {len(steps)}: {step.turns[0].label}", file=sys.stderr)
        for replay in replays:
            await replay.step(step)


def parse() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.set_defaults(shape=None)
    parser.add_argument("--wire", default="anthropic", choices=list(PATHS))
    parser.add_argument("--scale", default=0.1, type=float)
    parser.add_argument("--session", default=SESSION, type=Path)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "pensieve-bench")
    parser.add_argument("--servers")
    parser.add_argument("--start", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--url", action="append", default=[])
    parser.add_argument("--model-name", default="")
    parser.add_argument("--key")
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.servers is None:
        arguments.servers = "" if arguments.url else "pensieve,mlx_lm.server"
    return arguments


def show(runs: list[Run], arguments: argparse.Namespace, took_s: float) -> None:
    print(turns_table(runs) + "\n")
    print(table({run.name: summary(run) for run in runs}))
    print(f"\nscale {arguments.scale}, {took_s:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps([report(run) for run in runs], indent=1))


async def main() -> None:
    arguments = parse()
    turns = read_turns(arguments.session.read_text(encoding="utf-8").splitlines())
    steps = steps_of([turn.scaled(arguments.scale) for turn in turns])
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        bench = bench_of(arguments, Path(temporary))
        with begun(subjects(arguments, bench), arguments.seed) as replays:
            try:
                await play(replays, steps)
            finally:  # also of a session that is interrupted
                runs = [replay.run for replay in replays]
                show(runs, arguments, time.perf_counter() - started_s)


if __name__ == "__main__":
    asyncio.run(main())
