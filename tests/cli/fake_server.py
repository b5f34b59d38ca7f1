"""A fake server on loopback: `/health`, and `/v1/messages` as a scripted stream.

As a program (`stand_in_command`) it replaces the real server: it takes the home's lock and
publishes its record, as `pensieve start --foreground` does.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

from pensieve.daemon import server_lock
from pensieve.daemon.bind import bind
from pensieve.daemon.processes import command_of
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.paths import under_home
from pensieve.peer_proof import CHALLENGE_HEADER, PROOF_FIELD, Prover
from pensieve.settings.resolve import homebrew_service
from tests.cli.program import OWN_KEY

MODEL = "tiny"
PROVER = Prover(OWN_KEY)
Event = dict[str, object]
MODEL_INFO: Event = {
    "id": MODEL,
    "display_name": "Tiny",
    "created_at": "2026-01-01T00:00:00Z",
    "max_input_tokens": 8192,
    "max_tokens": 8192,
}


class Refusal(Exception):  # noqa: N818
    """Answer with this status and Anthropic's envelope."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        error = {"type": "invalid_request_error", "message": message}
        self.body = {"type": "error", "error": error, "request_id": "req_1"}


def delta(text: str) -> Event:
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    }


def message(
    *texts: str, stop_reason: str = "end_turn", thoughts: Iterable[str] = ()
) -> list[Event]:
    """A whole answer, including events that the chat ignores."""
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}
    return [
        {"type": "message_start", "message": {"id": "msg_1", "model": MODEL, "usage": usage}},
        *thought(thoughts),
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *map(delta, texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason},
            "usage": {**usage, "output_tokens": len(texts)},
        },
        {"type": "message_stop"},
    ]


def text_of(turn: Event) -> str:
    """Return the text of a turn of a call, without its thought."""
    *_, text = turn["content"]  # type: ignore[misc]
    return text["text"]


def thought(texts: Iterable[str]) -> list[Event]:
    """A thinking block; no event without text."""
    deltas: list[Event] = [{"type": "thinking_delta", "thinking": text} for text in texts]
    if not deltas:
        return []
    block = {"type": "thinking", "thinking": "", "signature": ""}
    return [
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "signature_delta", "signature": "signed"},
        },
        {"type": "content_block_stop", "index": 0},
    ]


def health(status: str = "ready", detail: str = "") -> Event:
    return {
        "status": status,
        "model": MODEL,
        "repo": "someone/tiny",
        "context_tokens": 8192,
        "detail": detail,
        "restarts": 0,
        "in_flight": 0,
        "device": "cpu",
        "version": "0.1.0",
        "pid": os.getpid(),
    }


class FakeServer(ThreadingHTTPServer):
    """Follows a script and records the calls.

    `answers`: one per call, unless `answer_to`, a function of the body, is set. `calls`: headers
    and body of each. `prover`: None for a program without our key. `seen`: headers of all requests,
    with their `path`, and the address of the connection as `client`.
    """

    daemon_threads = True

    def __init__(self, listener: socket.socket, answers: Iterable[Iterable[Event]]) -> None:
        super().__init__(listener.getsockname(), Routes, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_port = listener.getsockname()[1]
        scripted = iter(answers)
        self.answer_to: Callable[[Event], Iterable[Event]] = lambda _: next(scripted)
        self.prover: Prover | None = PROVER
        self.healths: Callable[[], Event] = health
        self.thinks = False
        self.key: str | None = None  # the only one that is not refused
        self.tokens: Callable[[Event], int] = lambda body: len(body["messages"])
        self.seen: list[dict[str, str]] = []
        self.calls: list[tuple[dict[str, str], dict[str, object]]] = []
        self.has_lost_client = threading.Event()
        # The bodies of these paths; a path without one is not found.
        self.bodies: dict[str, Callable[[], Event]] = {}
        # The response to calls without `stream`; None streams anyway.
        self.whole: Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may leave without reading an answer; the traceback would be in its output."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Routes(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        headers = {k.lower(): v for k, v in self.headers.items()}
        where = {"client": str(self.client_address), "path": self.path}
        self.server.seen.append({**headers, **where})
        if self.server.key not in {None, self.headers.get("x-api-key", self.server.key)}:
            self._json(401, {})
            return
        if self.path.startswith("/v1/models/"):
            types = {"adaptive": {"supported": self.server.thinks}}
            self._json(200, MODEL_INFO | {"capabilities": {"thinking": {"types": types}}})
            return
        if self.path.startswith("/activity"):
            body = self.server.bodies.get(self.path)
            self._json(200, body()) if body else self._json(404, Refusal(404, "unknown").body)
            return
        report = self.server.healths() | self._proof()
        self._json(200 if report.get("status") == "ready" else 503, report)

    def _proof(self) -> Event:
        challenge = self.headers.get(CHALLENGE_HEADER)
        if challenge is None or self.server.prover is None:
            return {}
        return {PROOF_FIELD: self.server.prover.proof(challenge, self.server.server_port)}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/count_tokens"):
            self._json(200, {"input_tokens": self.server.tokens(body)})
            return
        self.server.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
        if self.server.whole is not None:
            self._json(200, self.server.whole)
            return
        try:
            self._stream(self.server.answer_to(body))
        except Refusal as refusal:
            self._json(refusal.status, refusal.body)
        except OSError:
            self.server.has_lost_client.set()

    def _stream(self, events: Iterable[Event]) -> None:
        begun = iter(events)
        first = next(begun)  # a refusal comes before the head
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.send_header("request-id", "req_own")
        self.end_headers()
        for event in chain([first], begun):
            self._event(event)

    def _event(self, event: Event) -> None:
        text = json.dumps(event, ensure_ascii=False)
        self.wfile.write(
            f"event: {event['type']}\ndata: {text}\n\n".encode("utf-8", "backslashreplace")
        )
        self.wfile.flush()

    def _json(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def refuse(status: int, message: str) -> Iterator[Event]:
    """Respond with a refusal."""
    raise Refusal(status, message)
    yield {}


def endlessly(text: str) -> Iterator[Event]:
    """Yield an answer until its reader disconnects."""
    yield delta(text)
    pace = threading.Event()
    while not pace.wait(0.02):
        yield {"type": "ping"}


@contextmanager
def serving(*answers: Iterable[Event]) -> Iterator[FakeServer]:
    """A fake server in a thread of this process."""
    with FakeServer(socket.create_server(("127.0.0.1", 0)), answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def stand_in(home: str, port: str, mode: str) -> None:
    """Run the program: `mode` selects how it starts and how it stops."""
    sys.stderr.write(f"stand-in {mode}\n")
    if mode == "dies":
        sys.exit("no luck today")
    if mode == "refuses":
        sys.stderr.write("Error: config.json is cursed.\nCopy it again:\n  cp -R\n")
        sys.exit(65)
    if mode == "fails":
        sys.stderr.write("ERROR the engine has failed: weights are cursed\n")
    if mode == "interrupts":
        os.kill(os.getppid(), signal.SIGINT)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: sys.exit(0))
    paths = under_home(Path(home))
    loading = {"slow": 3, "large": 18}.get(mode, 0)
    healths = iter([health("loading", f"{done} of {loading} GB") for done in range(loading)])
    settled = {
        "fails": health("failed", "weights are cursed"),
        "misfits": health("failed", "weights are cursed") | {"is_model_at_fault": True},
        "never": health("loading"),
        "interrupts": health("loading"),
        "asleep": health("asleep"),
    }.get(mode, health())
    with server_lock.acquire(paths) as is_ours:
        if not is_ours:
            sys.exit(0)
        with bind("127.0.0.1", int(port)) as listener:
            server = FakeServer(listener, iter(lambda: message("Paris", "."), None))
            server.healths = lambda: next(healths, settled)
            address = Address("127.0.0.1", int(port), MODEL, "cpu")
            with publish(paths, own_record(address, service=homebrew_service())):
                server.serve_forever(poll_interval=0.05)


def stand_in_command(home: Path, port: int, mode: str) -> list[str]:
    """Return what `launch` runs instead of pensieve; works without an installed checkout."""
    root = str(Path(__file__).parents[2])
    program = (
        f"import sys; sys.path.insert(0, {root!r}); "
        "from tests.cli.fake_server import stand_in; stand_in(*sys.argv[1:4])"
    )
    return [sys.executable, "-c", program, str(home), str(port), mode]


def stand_ins_of(home: Path) -> list[str]:
    """Return the running stand-ins of this home. Linux may lack ps(1), macOS has no /proc."""
    if Path("/proc/self").exists():
        listed = [" ".join(command_of(int(p.name))) for p in Path("/proc").glob("[0-9]*")]
    else:
        printed = subprocess.run(
            ["ps", "-A", "-ww", "-o", "args="], capture_output=True, check=True
        )
        listed = printed.stdout.decode("utf-8", "replace").splitlines()
    # The folder above the home is named by pytest, in ASCII, which ps does not rewrite.
    return [line for line in listed if "stand_in" in line and str(home.parent) in line]
