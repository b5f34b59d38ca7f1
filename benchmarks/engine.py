"""Decode rate (tokens/s), time to first token (s) and memory (GB) of pensieve and mlx-lm.

usage: python -m benchmarks.engine [--device cpu|gpu] [--model FOLDER | --shape tiny|phi3|wide]
    [--lengths 1000,4000] [--rounds 3] [--turns 5] [--bursts 4,8] [--answers 16,64]
    [--only bursts] [--json FILE]
Measured are raw mlx-lm, the pensieve server and mlx_lm.server, with the same model and prompts, one
after another. `--shape phi3` makes a model of Phi-3-mini's shape with random 4-bit weights, which
has the speed and size of the real one. Rates and times are the best of the rounds, since other load
on a shared machine only makes figures worse; raw mlx-lm runs before and after the others. Compare
ratios within one run. Bursts of short requests are measured last, with both servers in turns
(benchmarks/bursts.py).
"""

# pyright: basic

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.bursts import ANSWERS, SIZES, in_turns
from pensieve.engine.client.launch import worker_variables
from pensieve.settings.resolve import Device

ROOT = Path(__file__).parent.parent
ANSWER_TOKENS = 64
# Anthropic counts cached tokens apart from the others, OpenAI among them.
PROMPT_COUNTS = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "prompt_tokens",
)  # fmt: skip
KV_PER_TOKEN = "KV cache, KB a token"
KEY = {"x-api-key": "pensieve-local-key"}
# asyncio's own pool has six threads on two cores, too few for eight streams.
_CLIENTS = ThreadPoolExecutor(32)


@dataclass
class Stream:
    """One streamed answer; times are seconds since the request was sent."""

    arrivals_s: list[float] = field(default_factory=list)  # of each token
    text: str = ""
    end_s: float = 0.0
    usage: dict[str, Any] = field(default_factory=dict)  # as the server reports it, without nulls

    @property
    def ttft_s(self) -> float:
        return self.arrivals_s[0] if self.arrivals_s else self.end_s

    @property
    def output_tokens(self) -> int:
        return self.usage.get("output_tokens", self.usage.get("completion_tokens", 0))

    @property
    def prompt_tokens(self) -> int:
        """Return the tokens of the prompt, cached or not."""
        return sum(self.usage.get(name, 0) for name in PROMPT_COUNTS)

    @property
    def cached_tokens(self) -> int | None:
        """Return the cached tokens of the prompt; None if the server does not report them."""
        details = self.usage.get("prompt_tokens_details", {})
        return self.usage.get("cache_read_input_tokens", details.get("cached_tokens"))

    @property
    def longest_gap_s(self) -> float:
        gaps = [b - a for a, b in zip(self.arrivals_s, self.arrivals_s[1:], strict=False)]
        return max(gaps, default=0.0)


@dataclass(frozen=True)
class Server:
    """A running server; `path` is that of Anthropic's or OpenAI's API."""

    name: str
    url: str
    path: str
    process: subprocess.Popen[bytes] | None  # None: not started here
    headers: Mapping[str, str] = field(default_factory=lambda: KEY)

    @property
    def pid(self) -> int:
        assert self.process, f"{self.name} was not started here"
        return self.process.pid

    async def stream(self, prompt: str, max_tokens: int = ANSWER_TOKENS) -> Stream:
        body = {
            "model": "default_model",
            "max_tokens": max_tokens,
            "stream": True,
            "temperature": 0,
            "messages": [{"role": "user", "content": prompt}],
        }
        if self.path.endswith("completions"):
            body["stream_options"] = {"include_usage": True}
        return await self.send(body)

    async def send(self, body: dict, on_piece: Callable[[bytes], object] | None = None) -> Stream:
        """Stream the answer to a request; call `on_piece` in a thread of its own."""
        loop = asyncio.get_running_loop()
        pieces = await loop.run_in_executor(_CLIENTS, self._pieces, json.dumps(body), on_piece)
        # Parsed afterwards: on a small machine a client takes CPU time from the servers.
        stream = Stream(end_s=pieces[-1][0])
        for at_s, payload in payloads(pieces):
            record(payload, stream, at_s)
        return stream

    def _pieces(
        self, body: str, on_piece: Callable[[bytes], object] | None
    ) -> list[tuple[float, bytes]]:
        """Return the answer's bytes with their times.

        http.client: httpx takes 0.7 ms a token on a machine that makes one in 4 ms.
        """
        address = urlsplit(self.url)
        is_https = address.scheme == "https"
        kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        connection = kind(address.netloc)
        with contextlib.closing(connection):
            started = time.perf_counter()
            headers = {**self.headers, "content-type": "application/json"}
            connection.request("POST", address.path.rstrip("/") + self.path, body, headers)
            response = connection.getresponse()
            assert response.status == 200, response.read().decode()
            pieces = []
            while piece := response.read1():
                pieces.append((time.perf_counter() - started, piece))
                if on_piece:
                    on_piece(piece)
            return [*pieces, (time.perf_counter() - started, b"")]


def payloads(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, dict]]:
    """Yield each event's JSON with the time at which its line was complete."""
    rest = b""
    for at_s, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield at_s, json.loads(line[6:])


def record(payload: dict[str, Any], stream: Stream, at_s: float) -> None:
    add_usage(payload.get("message") or {}, stream)
    add_usage(payload, stream)
    if payload.get("type") == "content_block_delta":
        stream.arrivals_s.append(at_s)
        stream.text += payload["delta"].get("text", "")
    elif choices := payload.get("choices"):
        delta = choices[0].get("delta") or {}
        text = delta.get("content") or ""
        stream.text += text
        if text or delta.get("reasoning_content") or delta.get("reasoning"):
            stream.arrivals_s.append(at_s)


def add_usage(payload: dict[str, Any], stream: Stream) -> None:
    usage = payload.get("usage") or {}
    stream.usage |= {name: value for name, value in usage.items() if value is not None}


def resident_gb(pid: int) -> float:
    """Return the peak resident memory of a process and its children, without device memory."""
    pids = [pid]
    with contextlib.suppress(OSError):
        pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    total = 0
    for one in pids:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            total += int(status.partition("VmHWM:")[2].split()[0])
    return total / 1e6


def device_gb() -> float:
    """Return the used memory of the first NVIDIA device."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    output = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return float(output.split()[0]) * 2**20 / 1e9 if output else 0.0


def kv_bytes(server: Server) -> int:
    """Return the bytes of pensieve's KV caches in memory."""
    engine = httpx.get(server.url + "/health", headers=KEY).json()["engine"]
    return engine["kv_used_bytes"] + engine["prefix_memory_bytes"]


def kill_with_children(pid: int) -> None:
    """Kill a process and its children with SIGKILL, as if the machine had crashed."""
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    children = listed.stdout.split()
    for one in (pid, *map(int, children)):
        os.kill(one, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Bench:
    """Starts servers on one model folder and measures them."""

    def __init__(self, folder: Path, device: Device, home: Path, rounds: int = 1) -> None:
        self.folder, self.home, self.rounds = folder, home, rounds
        self.device: Device = device
        self.environment = os.environ | {"PENSIEVE_HOME": str(home)}
        self.random = random.Random(0)

    def prompt(self, tokens: int) -> str:
        """Return another prompt of about so many tokens."""
        return words(tokens, self.random)

    @contextlib.contextmanager
    def pensieve(self):
        port = free_port()
        command = [sys.executable, "-m", "pensieve", "start", "--foreground", "--port", str(port)]
        command += ["--model", str(self.folder), "--device", self.device]
        with self.running("pensieve", command, port, "/v1/messages", self.environment) as server:
            yield server

    @contextlib.contextmanager
    def mlx_lm_server(self):
        port = free_port()
        command = [sys.executable, "-m", "mlx_lm", "server", "--port", str(port)]
        command += ["--model", str(self.folder)]
        environment = self.environment | worker_variables(self.device)
        with self.running(
            "mlx_lm.server", command, port, "/v1/chat/completions", environment
        ) as server:
            yield server

    @contextlib.contextmanager
    def running(self, name: str, command: list[str], port: int, path: str, environment: dict):
        log = (self.home / f"{name}.log").open("ab")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        server = Server(name, f"http://127.0.0.1:{port}", path, process)
        try:
            wait_until_ready(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            log.close()

    async def measure(self, server: Server, lengths: list[int]) -> dict[str, float]:
        """Return all figures of one server."""
        figures: dict[str, float] = {}
        await self.warm_up(server, lengths)
        for streams in (1, 4, 8):
            rates = [await self.decode_rate(server, streams) for _ in range(self.rounds)]
            figures[f"decode tok/s, {streams} streams"] = max(rates)
        for length in lengths:
            answers = [await self.cold_and_warm(server, length) for _ in range(self.rounds)]
            figures[f"TTFT cold {length}, s"] = min(cold for cold, _ in answers)
            figures[f"TTFT warm {length}, s"] = min(warm for _, warm in answers)
        figures["longest gap during a long prefill, s"] = await self.gap(server, max(lengths))
        if server.name == "pensieve":
            figures[KV_PER_TOKEN] = await self.kb_per_token(server, max(lengths))
        figures["peak memory of its processes, GB"] = resident_gb(server.pid)
        if self.device == "gpu":
            figures["device memory, GB"] = device_gb()
        return figures

    async def cold_and_warm(self, server: Server, length: int) -> tuple[float, float]:
        """Return the times to first token of a new prompt, and of it with two more words."""
        prompt = self.prompt(length)
        cold = await server.stream(prompt, 4)
        warm = await server.stream(prompt + " and then", 4)
        return cold.ttft_s, warm.ttft_s

    async def warm_up(self, server: Server, lengths: list[int]) -> None:
        """Use all sizes once: kernels compile at first use, some for each size."""
        for streams in (1, 4, 8):
            await self.decode_rate(server, streams)
        for length in lengths:
            prompt = self.prompt(length)
            await server.stream(prompt, 4)
            await server.stream(prompt + " and then", 4)

    async def decode_rate(self, server: Server, streams: int) -> float:
        """Return the total tokens/s of all streams, while all of them decode."""
        prompts = [self.prompt(60) for _ in range(streams)]
        answers = await asyncio.gather(
            *(server.stream(prompt, 4 * ANSWER_TOKENS) for prompt in prompts)
        )
        begin = max(answer.arrivals_s[0] for answer in answers)
        end = min(answer.arrivals_s[-1] for answer in answers)
        rates = (
            sum(begin < at <= end for at in answer.arrivals_s) / (end - begin) for answer in answers
        )
        return sum(rates)

    async def gap(self, server: Server, length: int) -> float:
        """Return the longest gap of a running answer during the prefill of a long prompt."""
        running = asyncio.create_task(server.stream(self.prompt(60), 400))
        await asyncio.sleep(0.5)
        await server.stream(self.prompt(length), 4)
        return (await running).longest_gap_s

    async def kb_per_token(self, server: Server, length: int) -> float:
        """Return the KB per token of a long prompt's KV cache, as counted by the engine."""
        before = kv_bytes(server)
        answer = await server.stream(self.prompt(length), 4)
        # The engine reports its stats once a second.
        await asyncio.sleep(1.5)
        tokens = answer.prompt_tokens + answer.output_tokens
        return (kv_bytes(server) - before) / tokens / 1000

    async def after_restart(self, length: int) -> dict[str, float]:
        """Return figures of the next turn after SIGKILL a second after an answer."""
        prompt = self.prompt(length)
        with self.pensieve() as server:
            await server.stream(self.prompt(50))
            cold = await server.stream(prompt, 4)
            await asyncio.sleep(1)
            kill_with_children(server.pid)
        with self.pensieve() as server:
            await server.stream(self.prompt(50))
            warm = await server.stream(prompt + " and then", 4)
        return {
            f"TTFT after SIGKILL {length}, s": warm.ttft_s,
            f"  as a part of cold, {length}": warm.ttft_s / cold.ttft_s,
            f"  tokens restored, {length}": float(warm.cached_tokens or 0),
        }

    async def first_answer(self, maker) -> float:
        """Return the seconds from the start of the process to the first token."""
        started = time.perf_counter()
        with maker() as server:
            answer = await server.stream("Hello", 2)
            return time.perf_counter() - started - answer.end_s + answer.ttft_s

    def raw(self, lengths: list[int]) -> dict[str, float]:
        """Return the figures of mlx-lm's generate_step in another process."""
        lengths_json = json.dumps(lengths)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                RAW,
                str(self.folder),
                self.device,
                lengths_json,
                str(self.rounds),
            ],
            env=self.environment | worker_variables(self.device),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


RAW_LOOP = """
import json, sys, time
folder, device = sys.argv[1:3]
import mlx.core as mx
mx.set_default_device(getattr(mx, device))  # mlx-lm makes its stream when it is imported
from pathlib import Path
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from pensieve.engine.model.loading import load_weights
model = load_weights(Path(folder), device)
def run(n, tokens, cache=None):
    prompt = mx.array([(7 * i) % 251 + 3 for i in range(n)])
    started = time.perf_counter(); first = None
    steps = generate_step(prompt, model, max_tokens=tokens, prompt_cache=cache)
    for count, _ in enumerate(steps, 1):
        first = first or time.perf_counter()
    return first - started, (count - 1) / (time.perf_counter() - first)
"""

RAW = (
    RAW_LOOP
    + """
NEW_TOKENS = 13  # two words, the answer before them, and control tokens
lengths, rounds = json.loads(sys.argv[3]), int(sys.argv[4])
def length_of(cache):
    return max(getattr(layer, "offset", 0) for layer in cache)
def cold_and_warm(n):
    cache = make_prompt_cache(model)
    both = run(n, 4, cache)[0], run(NEW_TOKENS, 4, cache)[0]
    figures["KV cache, KB a token"] = sum(layer.nbytes for layer in cache) / length_of(cache) / 1000
    return both
figures = {}
run(60, 256)
figures["decode tok/s, 1 streams"] = max(run(60, 256)[1] for _ in range(rounds))
for n in lengths:
    cold_and_warm(n)
    # Another length each time, as with a server's prompts.
    both = [cold_and_warm(n + 1 + 3 * i) for i in range(rounds)]
    figures[f"TTFT cold {n}, s"] = min(cold for cold, _ in both)
    figures[f"TTFT warm {n}, s"] = min(warm for _, warm in both)
figures["peak memory of its processes, GB"] = mx.get_peak_memory() / 1e9
print(json.dumps(figures))
"""
)

WORDS = [
    "river", "stone", "window", "letter", "garden", "music", "number", "silver", "yellow",
    "morning", "paper", "bridge", "summer", "winter", "forest", "market", "planet", "doctor",
    "engine", "signal",
]  # fmt: skip
TOKENS_PER_WORD = 1.0


def words(tokens: int, source: random.Random) -> str:
    """Return random words of about so many tokens."""
    return " ".join(source.choice(WORDS) for _ in range(int(tokens / TOKENS_PER_WORD)))


def calibrate(folder: Path) -> None:
    """Set the tokens per word of this tokenizer."""
    from tokenizers import Tokenizer

    global TOKENS_PER_WORD  # noqa: PLW0603
    text = " ".join(WORDS * 20)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    TOKENS_PER_WORD = len(tokenizer.encode(text, add_special_tokens=False).ids) / (20 * len(WORDS))


def wait_until_ready(
    server: Server, process: subprocess.Popen[bytes], timeout_s: float = 300
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{server.name} ended"
        status = status_of(server.url + "/health")
        # Not all servers have /health.
        if status == 200 or (status == 404 and status_of(server.url + "/v1/models") == 200):
            return
        time.sleep(0.05)
    raise TimeoutError(server.name)


def status_of(url: str) -> int:
    """Return the status of a GET; 0 if there is no server."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, headers=KEY).status_code
    return 0


def make_model(shape: str, folder: Path) -> Path:
    """Make a random model.

    `tiny`: float32, for CPUs. `phi3`: Phi-3-mini's shape in 4 bits, for GPUs. `wide`: 17 GB in
    bfloat16 with few wide layers, whose decoding is bound by the GPU instead of the CPU.
    """
    sys.path.insert(0, str(ROOT))
    from tests.support import tiny_models

    tiny_models.build("llama" if shape == "tiny" else "phi3-longrope", folder)
    subprocess.run([sys.executable, "-c", GROW, str(folder), shape], check=True)
    return folder


GROW = """
import json, sys
from pathlib import Path
import mlx.core as mx, mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes
from tokenizers import Tokenizer
folder, shape = Path(sys.argv[1]), sys.argv[2]
config = json.loads((folder / "config.json").read_text())
config["tie_word_embeddings"] = False
if shape == "tiny":
    config |= dict(hidden_size=256, num_hidden_layers=4, intermediate_size=512, head_dim=64,
                   num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=65536)
    config.pop("quantization", None)
else:
    if shape == "wide":
        config |= dict(hidden_size=8192, num_hidden_layers=10, intermediate_size=28672,
                       num_attention_heads=64, num_key_value_heads=8, head_dim=128)
        config.pop("quantization", None)
    else:
        config |= dict(hidden_size=3072, num_hidden_layers=32, intermediate_size=8192,
                       num_attention_heads=32, num_key_value_heads=32, head_dim=96)
        config["quantization"] = dict(group_size=64, bits=4)
    factors = [1.0 + 0.1 * i for i in range(config["head_dim"] // 2)]
    config["rope_scaling"] |= dict(long_factor=factors, short_factor=factors)
model_class, args_class = _get_classes(config)
mx.random.seed(0)
model = model_class(args_class.from_dict(config))
# Only tokens that begin a word are generated: the client receives each at once, and none is a stop
# token.
vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
def begins_word(text):
    return text[0] in "\u2581\u0120" and text[1:].isascii() and text[1:].isalpha()
word_ids = [number for text, number in vocabulary.items() if begins_word(text)]
is_word = mx.zeros(config["vocab_size"]).at[mx.array(word_ids)].add(1)
model.lm_head.weight = model.lm_head.weight * is_word[:, None]
if shape == "tiny":
    model.set_dtype(mx.float32)
else:
    model.set_dtype(mx.bfloat16)
if shape == "phi3":
    nn.quantize(model, 64, 4)
mx.eval(model.parameters())
weights = dict(tree_flatten(model.parameters()))
mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
(folder / "config.json").write_text(json.dumps(config))
"""


def best_of(some: dict[str, float], others: dict[str, float]) -> dict[str, float]:
    """Return the better one of each figure."""
    return {
        name: (max if "tok/s" in name else min)(figure, others[name])
        for name, figure in some.items()
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    lines = [f"{'':44}" + "".join(f"{server:>16}" for server in rows)]
    for name in names:
        cells = (
            f"{figures[name]:16.3f}" if name in figures else " " * 16 for figures in rows.values()
        )
        lines.append(f"{name:44}" + "".join(cells))
    return "\n".join(lines)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of model and device."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shape", default="tiny", choices=["tiny", "phi3", "wide"])
    return parser


async def one_by_one(bench: Bench, lengths: list[int]) -> dict[str, dict[str, float]]:
    """Return the figures of raw mlx-lm and of each server, while no other runs."""
    rows = {"raw mlx-lm": bench.raw(lengths)}
    for maker in (bench.pensieve, bench.mlx_lm_server):
        first = statistics.median([await bench.first_answer(maker) for _ in range(3)])
        with maker() as server:
            rows[server.name] = await bench.measure(server, lengths)
            rows[server.name]["first token after start, s"] = first
        print(json.dumps(rows), flush=True)
    rows["raw mlx-lm"] = best_of(rows["raw mlx-lm"], bench.raw(lengths))
    for length in lengths:
        rows["pensieve"] |= await bench.after_restart(length)
    return rows


async def burst_figures(
    bench: Bench, turns: int, sizes: tuple[int, ...] = SIZES, answers: tuple[int, ...] = ANSWERS
) -> dict[str, dict[str, float]]:
    """Return the figures of bursts, with both servers loaded at once."""
    with bench.pensieve() as ours, bench.mlx_lm_server() as theirs:
        return await in_turns(bench.prompt, [ours, theirs], turns, sizes, answers)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


async def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--lengths", default="1000,4000")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--turns", default=5, type=int, help="of each burst")
    parser.add_argument("--bursts", default=SIZES, type=numbers, help="requests at once")
    parser.add_argument("--answers", default=ANSWERS, type=numbers, help="tokens of each")
    parser.add_argument("--only", choices=["bursts"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.lengths.split(",")]
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        folder = arguments.model or make_model(arguments.shape, home / "model")
        calibrate(folder)
        bench = Bench(folder, arguments.device, home, arguments.rounds)
        if arguments.only != "bursts":
            rows = await one_by_one(bench, lengths)
        bursts = burst_figures(bench, arguments.turns, arguments.bursts, arguments.answers)
        for name, figures in (await bursts).items():
            rows[name] = rows.get(name, {}) | figures
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
