"""A served model over HTTP: sends requests, records when bytes arrive, parses them afterwards.

http.client, and parsing after the end: on a small machine a client takes processor time from the
server that it measures (httpx: 0.7 ms a token, two-core Linux machine, 2026-11-27).
"""

import http.client
import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

from pensieve.bench.answers import Answer, Ask
from pensieve.daemon.health_client import Health, ask, reason_of
from pensieve.daemon.http_connection import http_connection
from pensieve.daemon.server_record import ServerRecord
from pensieve.errors import RequestError, ServerUnavailableError
from pensieve.untrusted_json import read_object

API_VERSION = "2023-06-01"
COUNT_TIMEOUT_S = 60.0
MAX_ERROR_BYTES = 65536
_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_DELTAS = {"text_delta", "thinking_delta"}

Piece = tuple[float, bytes]  # seconds since the request, bytes


@dataclass(frozen=True, slots=True)
class HttpServed:
    """The caller has checked that the server is ours."""

    record: ServerRecord
    api_key: str

    def answers(self, asks: Sequence[Ask], timeout_s: float) -> list[Answer]:
        began = time.perf_counter()

        def answer(each: Ask) -> Answer:
            return answer_of(self._pieces("/v1/messages", self._body(each), began, timeout_s))

        if len(asks) == 1:
            return [answer(asks[0])]
        with ThreadPoolExecutor(len(asks)) as clients:
            return list(clients.map(answer, asks))

    def count_tokens(self, text: str) -> int:
        body = {"model": self.record.model, "messages": [{"role": "user", "content": text}]}
        began = time.perf_counter()
        pieces = self._pieces("/v1/messages/count_tokens", body, began, COUNT_TIMEOUT_S)
        return _count(read_object(b"".join(content for _, content in pieces)), "input_tokens")

    def health(self) -> Health:
        return ask(self.record)

    def _body(self, each: Ask) -> dict[str, object]:
        # Thoughts are disabled where the model can; where it cannot, they arrive and count.
        return {
            "model": self.record.model,
            "max_tokens": each.max_tokens,
            "temperature": each.temperature,
            "thinking": {"type": "disabled"},
            "stream": True,
            "messages": [{"role": "user", "content": each.text}],
        }

    def _pieces(self, path: str, body: object, began: float, timeout_s: float) -> list[Piece]:
        """Return the response with the time at which each part of it arrived."""
        connection = http_connection(self.record.direct_url, self.record.trust, timeout_s)
        headers = {
            "content-type": "application/json",
            "anthropic-version": API_VERSION,
            "x-api-key": self.api_key,
        }
        with closing(connection):
            try:
                connection.request("POST", path, json.dumps(body), headers)
                transport = connection.sock
                with connection.getresponse() as response:
                    _check(response)
                    return list(_read(response, transport, began, timeout_s))
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException) as error:
                raise _unavailable(reason_of(error)) from error


def _read(
    response: http.client.HTTPResponse, transport: socket.socket, began: float, timeout_s: float
) -> Iterator[Piece]:
    while True:
        left_s = began + timeout_s - time.perf_counter()
        if left_s <= 0:
            raise TimeoutError
        if transport.fileno() >= 0:  # http.client can hand the connection to the response
            transport.settimeout(left_s)
        if not (content := response.read1()):
            return
        yield time.perf_counter() - began, content


def answer_of(pieces: Sequence[Piece]) -> Answer:
    """Parse a stream. Raises `ServerUnavailableError` if it ended early."""
    arrivals_s: list[float] = []
    usage: dict[str, Any] = {}
    end_s = 0.0
    for at_s, event in _events(pieces):
        match event:
            case {"type": "content_block_delta", "delta": {"type": kind}} if kind in _DELTAS:
                arrivals_s.append(at_s)
            case {"type": "message_delta", "usage": dict()}:
                usage, end_s = event["usage"], at_s
            case {"type": "error", "error": {"message": str(message)}}:
                raise _unavailable(message)
            case _:
                pass
    if not usage:
        raise _unavailable("an answer ended early")
    prompt, *cached = (_count(usage, name) for name in _TOKENS)
    return Answer(
        arrivals_s=tuple(arrivals_s),
        end_s=end_s,
        prompt_tokens=prompt + sum(cached),
        cached_tokens=cached[-1],
        output_tokens=_count(usage, "output_tokens"),
    )


def _events(pieces: Sequence[Piece]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each event with the time at which its line was complete."""
    rest = b""
    for at_s, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield at_s, cast("dict[str, Any]", _object(line.removeprefix(b"data: ")))


def _check(response: http.client.HTTPResponse) -> None:
    if response.status == http.client.OK:
        return
    match _object(response.read(MAX_ERROR_BYTES)):
        case {"error": {"message": str(message)}}:
            pass
        case _:
            message = f"HTTP status {response.status}"
    if response.status in {429, 503, 529}:
        raise _unavailable(message)
    raise RequestError(f"The server refused: {message}")


def _object(text: bytes) -> dict[str, object]:
    try:
        return read_object(text)
    except ValueError:
        return {}


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _unavailable(reason: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"The server could not be measured to the end: {reason}.",
        hint="Check it, then measure again:\n  pensieve status",
    )
