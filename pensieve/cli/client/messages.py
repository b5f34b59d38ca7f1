"""The chat command's side of the Anthropic API: a call out, the answer as it arrives.

Reads what it needs of the stream and skips the rest, as the API asks of its clients. Knows no terminal.
"""

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pensieve.cli.client.connection import Server, client_of, decoded, key_of
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
# Reading waits long: a large prompt on a slow machine is silent but for the server's pings.
READ_TIMEOUT_S = 600.0
TOO_LONG = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
PROMPT_FIELDS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

Role = Literal["user", "assistant"]
Thinking = Literal["none", "shown", "hidden"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation. thought, signature: what went before an answer, to be sent back as it came."""

    role: Role
    text: str
    thought: str = ""
    signature: str = ""

    def as_json(self) -> dict[str, object]:
        """The turn as the API has it."""
        if not self.signature:
            return {"role": self.role, "content": self.text}
        thought = {"type": "thinking", "thinking": self.thought, "signature": self.signature}
        return {"role": self.role, "content": [thought, {"type": "text", "text": self.text}]}


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the model. `thinking` "hidden": it thinks and keeps the thought to itself."""

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None = None  # None: as the server samples where it is not asked
    system: str = ""
    thinking: Thinking = "none"

    def as_json(self) -> dict[str, object]:
        """The body of `POST /v1/messages`."""
        body: dict[str, object] = {
            **self.prompt_as_json(),
            "max_tokens": self.max_tokens,
            "stream": True,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        return body

    def prompt_as_json(self) -> dict[str, object]:
        """The part that the prompt is made from: the body of `POST /v1/messages/count_tokens`."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [turn.as_json() for turn in self.turns],
        }
        if self.system:
            body["system"] = self.system
        if self.thinking != "none":
            hidden = {"display": "omitted"} if self.thinking == "hidden" else {}
            body["thinking"] = {"type": "adaptive", **hidden}
        return body


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model thinks before it answers; empty where it begins, and where it is kept from us."""

    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing new yet; the server is at work."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The answer is whole. usage: as the server reports it. signature: the thought's, empty without one."""

    stop_reason: str
    usage: Mapping[str, Any]
    model: str = ""
    signature: str = ""

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt, cached or not."""
        return sum(self._count(name) for name in PROMPT_FIELDS)

    @property
    def output_tokens(self) -> int:
        """What the model wrote."""
        return self._count("output_tokens")

    def _count(self, name: str) -> int:
        value = self.usage.get(name)
        return value if isinstance(value, int) else 0


Event = Text | Thought | Waiting | StreamEnd


def answer(server: Server, call: Call) -> Generator[Event]:
    """The answer as it arrives; closing the generator hangs up, which cancels it in the server.

    Raises `NoServerError` where nobody listens, `ServerUnavailableError` where the server is busy or breaks off,
    `PromptTooLongError` and other `RequestError`s where it refuses.
    """
    with (
        client_of(server, READ_TIMEOUT_S, headers=key_of(server)) as client,
        client.stream("POST", "/v1/messages", json=call.as_json()) as response,
    ):
        _check(response)
        yield from _read(events(lines(response.iter_bytes())))


def count_tokens(server: Server, call: Call) -> int:
    """The prompt's length in tokens. Raises as `answer` does."""
    with client_of(server, READ_TIMEOUT_S, headers=key_of(server)) as client:
        response = client.post("/v1/messages/count_tokens", json=call.prompt_as_json())
        _check(response)
        return int(decoded(response.content).get("input_tokens", 0))


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
                raise _refused(event, is_busy=True)
            case _:
                yield from _shown(event)
    raise ServerUnavailableError(
        "The answer was cut off before its end.", hint="See how the server is:\n  pensieve status"
    )


def _shown(event: dict[str, Any]) -> Iterator[Event]:
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
            "The server does not know this key.",
            hint="It was started with another PENSIEVE_API_KEY than this shell has. Set the same\n"
            "one here, or start it again from here: pensieve stop, then pensieve start",
        )
    is_busy = response.status_code in BUSY
    raise _refused(decoded(response.content), is_busy=is_busy, status=response.status_code)


def _refused(body: object, *, is_busy: bool, status: int | None = None) -> PensieveError:
    match body:
        case {"error": {"message": str(message)}}:
            text = message
        case _:
            text = f"HTTP status {status}, not from a pensieve server?"
    if is_busy:
        hint = "Try again in a moment, or see how the server is:\n  pensieve status"
        return ServerUnavailableError(f"The server cannot answer now: {text}", hint=hint)
    if too_long := TOO_LONG.search(text):
        return PromptTooLongError(*map(int, too_long.groups()))
    return RequestError(f"The server refused: {text}")
