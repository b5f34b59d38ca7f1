"""The chat command's side of the Anthropic API: a call out, the answer's text in as it arrives.

Reads what it needs of the stream and skips the rest, as the API asks of its clients. Knows no terminal.
"""

import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from pensieve.errors import PensieveError, RequestError, ServerUnavailableError

if TYPE_CHECKING:
    import httpx

API_VERSION = "2023-06-01"
BUSY = frozenset({429, 503, 529})
# Reading waits long: a large prompt on a slow machine is silent but for the server's pings.
READ_TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the model."""

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float
    system: str = ""

    def as_json(self) -> dict[str, object]:
        """The body of `POST /v1/messages`."""
        turns = [{"role": turn.role, "content": turn.content} for turn in self.turns]
        body: dict[str, object] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "messages": turns,
            "stream": True,
        }
        return {**body, "system": self.system} if self.system else body


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is whole."""

    stop_reason: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Server:
    """Where the calls go, and with which key."""

    base_url: str
    api_key: str


def answer(server: Server, call: Call) -> Generator[Text | Ended]:
    """The answer as it arrives; closing the generator hangs up, which cancels it in the server.

    Raises `ServerUnavailableError` where no server answers or it is busy, `RequestError` where it refuses.
    """
    import httpx  # a quarter of a second that `--help` and `env` do without

    headers = {"x-api-key": server.api_key, "anthropic-version": API_VERSION}
    url = f"{server.base_url}/v1/messages"
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    # Never through a proxy: the server is this machine.
    with httpx.Client(timeout=timeout, trust_env=False) as client:
        try:
            with client.stream("POST", url, headers=headers, json=call.as_json()) as response:
                _check(response)
                yield from _read(events(lines(response.iter_bytes())))
        except httpx.ConnectError as error:
            raise no_server(server.base_url) from error
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                f"The connection to {server.base_url} broke off ({type(error).__name__}).",
                hint="See how the server is:\n  pensieve status",
            ) from error


def no_server(base_url: str) -> ServerUnavailableError:
    """Nobody listens there."""
    return ServerUnavailableError(
        f"No pensieve server answers at {base_url}.", hint="Start it:\n  pensieve start"
    )


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""Lines that end in \n or \r\n and in nothing else.

    httpx's own `iter_lines` also ends them at U+2028 and its like, which JSON may hold unescaped.
    """
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def events(stream: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The decoded `data` of each server-sent event (WHATWG HTML 9.2.6). One that never ends in a blank line is dropped."""
    held: list[str] = []
    for line in stream:
        if line.startswith("data:"):
            held.append(line[5:].removeprefix(" "))
        elif not line and held:
            yield _decoded("\n".join(held))
            held = []


def _decoded(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except ValueError as error:
        raise ServerUnavailableError("The server's answer cannot be read: not JSON.") from error
    return cast("dict[str, Any]", event) if isinstance(event, dict) else {}


def _read(stream: Iterable[dict[str, Any]]) -> Iterator[Text | Ended]:
    ended = Ended("", 0)
    for event in stream:
        match event:
            case {
                "type": "content_block_delta",
                "delta": {"type": "text_delta", "text": str(text)},
            }:
                yield Text(text)
            case {
                "type": "message_delta",
                "delta": {**delta},
                "usage": {"output_tokens": int(count)},
            }:
                ended = Ended(str(delta.get("stop_reason") or ""), count)
            case {"type": "message_stop"}:
                yield ended
                return
            case {"type": "error"}:
                raise _refused(event, is_busy=True)
            case _:
                pass
    raise ServerUnavailableError(
        "The answer was cut off before its end.", hint="See how the server is:\n  pensieve status"
    )


def _check(response: "httpx.Response") -> None:
    if response.is_success:
        return
    response.read()
    if response.status_code == 401:
        raise RequestError(
            "The server does not know this key.",
            hint="It was started with another PENSIEVE_API_KEY than this shell has. Set the same\n"
            "one here, or start it again from here: pensieve stop, then pensieve start",
        )
    try:
        body = response.json()
    except ValueError:
        body = None
    raise _refused(body, is_busy=response.status_code in BUSY, status=response.status_code)


def _refused(body: object, *, is_busy: bool, status: int | None = None) -> PensieveError:
    match body:
        case {"error": {"message": str(message)}}:
            text = message
        case _:
            text = f"HTTP status {status}, not from a pensieve server?"
    if is_busy:
        hint = "Try again in a moment, or see how the server is:\n  pensieve status"
        return ServerUnavailableError(f"The server cannot answer now: {text}", hint=hint)
    return RequestError(f"The server refused: {text}")
