"""The Messages API as `pensieve chat` uses it: sends a call, yields the answer as it arrives.

Ignores unknown events, as the API requires of its clients. Knows no terminal.
"""

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pensieve.cli.client.connection import Server, decode_object, http_client, key_header
from pensieve.cli.client.sse import events, lines
from pensieve.errors import (
    PensieveError,
    PromptTooLongError,
    RequestError,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    import httpx

BUSY = frozenset({429, 503, 529})
# Long, because a large prompt on a slow machine takes minutes; the server only pings meanwhile.
READ_TIMEOUT_S = 600.0
TOO_LONG = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
PROMPT_FIELDS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

Role = Literal["user", "assistant"]
Thinking = Literal["none", "shown", "hidden"]


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str
    # The thinking block before an answer, sent back unchanged.
    thought: str = ""
    signature: str = ""

    def as_json(self) -> dict[str, object]:
        if not self.signature:
            return {"role": self.role, "content": self.text}
        thought = {"type": "thinking", "thinking": self.thought, "signature": self.signature}
        return {"role": self.role, "content": [thought, {"type": "text", "text": self.text}]}


@dataclass(frozen=True, slots=True)
class Call:
    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None = None  # None: the server's default
    system: str = ""
    thinking: Thinking = "none"  # "hidden": the model thinks, but the thought is not sent

    def as_json(self) -> dict[str, object]:
        """Return the body of `POST /v1/messages`."""
        body: dict[str, object] = {
            **self.prompt_as_json(),
            "max_tokens": self.max_tokens,
            "stream": True,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        return body

    def prompt_as_json(self) -> dict[str, object]:
        """Return the fields of the prompt: the body of `POST /v1/messages/count_tokens`."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [turn.as_json() for turn in self.turns],
        }
        if self.system:
            body["system"] = self.system
        if self.thinking != "none":
            display = {"display": "omitted"} if self.thinking == "hidden" else {}
            body["thinking"] = {"type": "adaptive", **display}
        return body


@dataclass(frozen=True, slots=True)
class Text:
    text: str


# A piece of the thinking; empty when it begins and when it is not sent.
@dataclass(frozen=True, slots=True)
class Thought:
    text: str


# A ping: nothing new yet.
@dataclass(frozen=True, slots=True)
class Waiting:
    pass


@dataclass(frozen=True, slots=True)
class StreamEnd:
    stop_reason: str
    usage: Mapping[str, Any]  # as reported by the server
    model: str = ""
    signature: str = ""  # of the thinking block, empty without one

    @property
    def prompt_tokens(self) -> int:
        """Return the length of the whole prompt, cached or not."""
        return sum(self._count(name) for name in PROMPT_FIELDS)

    @property
    def output_tokens(self) -> int:
        return self._count("output_tokens")

    def _count(self, name: str) -> int:
        value = self.usage.get(name)
        return value if isinstance(value, int) else 0


Event = Text | Thought | Waiting | StreamEnd


def answer(server: Server, call: Call) -> Generator[Event]:
    """Yield the answer as it arrives; closing the generator cancels it in the server.

    Raises `NoServerError` if no server listens, `ServerUnavailableError` if it is busy or the
    connection fails, `PromptTooLongError` and other `RequestError`s if it refuses.
    """
    with (
        http_client(server, READ_TIMEOUT_S, headers=key_header(server)) as client,
        client.stream("POST", "/v1/messages", json=call.as_json()) as response,
    ):
        _check(response)
        yield from _read(events(lines(response.iter_bytes())))


def count_tokens(server: Server, call: Call) -> int:
    """Return the prompt's length in tokens. Raises as `answer` does."""
    with http_client(server, READ_TIMEOUT_S, headers=key_header(server)) as client:
        response = client.post("/v1/messages/count_tokens", json=call.prompt_as_json())
        _check(response)
        return int(decode_object(response.content).get("input_tokens", 0))


def _read(stream: Iterable[dict[str, Any]]) -> Iterator[Event]:
    usage: dict[str, Any] = {}
    model = signature = stop_reason = ""
    for event in stream:
        match event:
            case {"type": "content_block_delta", "delta": {"type": "signature_delta", **delta}}:
                signature += str(delta.get("signature", ""))
            case {"type": "message_start", "message": {**message}}:
                model = str(message.get("model", ""))
                usage |= message.get("usage") or {}
            case {"type": "message_delta", "delta": {**delta}}:
                stop_reason = str(delta.get("stop_reason") or "")
                usage |= event.get("usage") or {}
            case {"type": "message_stop"}:
                yield StreamEnd(stop_reason, usage, model, signature)
                return
            case {"type": "error"}:
                raise _error_of(event, is_busy=True)
            case _:
                yield from _content_events(event)
    raise ServerUnavailableError(
        "The connection ended before the answer did.", hint="Check the server:\n  pensieve status"
    )


def _content_events(event: dict[str, Any]) -> Iterator[Event]:
    match event:
        case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str(text)}}:
            yield Text(text)
        case {
            "type": "content_block_delta",
            "delta": {"type": "thinking_delta", "thinking": str(text)},
        }:
            yield Thought(text)
        case {"type": "content_block_start", "content_block": {"type": "thinking"}}:
            yield Thought("")
        case {"type": "ping"}:
            yield Waiting()
        case _:
            pass


def _check(response: "httpx.Response") -> None:
    if response.is_success:
        return
    response.read()
    if response.status_code == 401:
        raise RequestError(
            "The server rejects this key.",
            hint="It was started with another PENSIEVE_API_KEY than this shell's. Set the same\n"
            "one here, or restart the server from here: pensieve stop, then pensieve start",
        )
    is_busy = response.status_code in BUSY
    raise _error_of(decode_object(response.content), is_busy=is_busy, status=response.status_code)


def _error_of(body: object, *, is_busy: bool, status: int | None = None) -> PensieveError:
    match body:
        case {"error": {"message": str(message)}}:
            text = message
        case _:
            text = f"HTTP status {status}; it may not be a pensieve server."
    if is_busy:
        hint = "Try again in a moment, or check the server:\n  pensieve status"
        return ServerUnavailableError(f"The server cannot answer now: {text}", hint=hint)
    if too_long := TOO_LONG.search(text):
        return PromptTooLongError(*map(int, too_long.groups()))
    return RequestError(f"The server refused: {text}")
