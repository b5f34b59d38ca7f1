"""The Messages API as `pensieve chat` uses it: sends a call, yields the answer as it arrives.

Ignores unknown events, as the API requires of its clients. Knows no terminal.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pensieve
from pensieve.api.errors import ErrorEnvelope
from pensieve.api.messages import request
from pensieve.api.messages.content_blocks import ImageBlock, TextBlock, ThinkingBlock
from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    parse_event,
)
from pensieve.api.messages.message import DeltaUsage, ThinkingContent, TokenCount, Usage
from pensieve.api.messages.options import UnbudgetedThinking
from pensieve.cli.client.connection import Server, http_client, key_header
from pensieve.cli.client.sse import event_data, lines
from pensieve.daemon.health_client import key_refused
from pensieve.errors import (
    PensieveError,
    PromptTooLongError,
    PromptUnprocessableError,
    RequestError,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    import httpx

BUSY = frozenset({429, 503, 529})
# Long, because a large prompt on a slow machine takes minutes; the server only pings meanwhile.
READ_TIMEOUT_S = 600.0
# What the messages of these errors say, as pensieve/errors.py writes them.
TOO_LONG = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
UNPROCESSABLE = re.compile(
    r"prompt is too long to be processed here: the engine ended (\d+) times at its first (\d+)"
    r" tokens, the last time after (\d+)"
)

Thinking = Literal["none", "shown", "hidden"]


@dataclass(frozen=True, slots=True)
class Turn:
    role: Literal["user", "assistant"]
    text: str
    # The thinking block before an answer, sent back unchanged.
    thought: str = ""
    signature: str = ""
    images: tuple[ImageBlock, ...] = ()  # before the text

    def as_value(self) -> request.Turn:
        text = TextBlock(type="text", text=_encodable(self.text))
        if not self.signature:
            return request.Turn(role=self.role, content=(*self.images, text))
        thought = ThinkingBlock(
            type="thinking", thinking=_encodable(self.thought), signature=self.signature
        )
        return request.Turn(role=self.role, content=(thought, text))


@dataclass(frozen=True, slots=True)
class Call:
    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None = None  # None: the server's default
    system: str = ""
    thinking: Thinking = "none"  # "hidden": the model thinks, but the thought is not sent

    def as_value(self) -> request.MessagesRequest:
        return request.MessagesRequest(
            model=self.model,
            messages=tuple(turn.as_value() for turn in self.turns),
            system=(TextBlock(type="text", text=_encodable(self.system)),) if self.system else (),
            thinking=self._thinking(),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stream=True,
        )

    def as_json(self) -> str:
        """Return the body of `POST /v1/messages`."""
        return self.as_value().model_dump_json(exclude_defaults=True)

    def prompt_as_json(self) -> str:
        """Return the fields of the prompt: the body of `POST /v1/messages/count_tokens`."""
        fields = set(request.Conversation.model_fields)
        return self.as_value().model_dump_json(exclude_defaults=True, include=fields)

    def _thinking(self) -> UnbudgetedThinking | None:
        if self.thinking == "none":
            return None
        display = "omitted" if self.thinking == "hidden" else None
        return UnbudgetedThinking(type="adaptive", display=display)


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
    usage: DeltaUsage
    model: str = ""
    signature: str = ""  # of the thinking block, empty without one

    @property
    def prompt_tokens(self) -> int:
        """Return the length of the whole prompt, cached or not."""
        usage = self.usage
        cached_tokens = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
        return usage.input_tokens + cached_tokens

    @property
    def output_tokens(self) -> int:
        return self.usage.output_tokens


Event = Text | Thought | Waiting | StreamEnd


def _ignore(_request_id: str) -> None: ...


def answer(
    server: Server, call: Call, on_accepted: Callable[[str], None] = _ignore
) -> Generator[Event]:
    """Yield the answer as it arrives; closing the generator cancels it in the server.

    on_accepted: receives the request's id once the server works on it.
    Raises `NoServerError` if no server listens, `ServerUnavailableError` if it is busy or the
    connection fails, `PromptTooLongError` and other `RequestError`s if it refuses.
    """
    with (
        http_client(server, READ_TIMEOUT_S, headers=_headers(server)) as client,
        client.stream("POST", "/v1/messages", content=call.as_json()) as response,
    ):
        _check(response)
        on_accepted(response.headers.get("request-id", ""))
        yield from _read(_events(response.iter_bytes()))


def count_tokens(server: Server, call: Call) -> int:
    """Return the prompt's length in tokens. Raises as `answer` does."""
    with http_client(server, READ_TIMEOUT_S, headers=_headers(server)) as client:
        response = client.post("/v1/messages/count_tokens", content=call.prompt_as_json())
        _check(response)
        try:
            return TokenCount.model_validate_json(response.content).input_tokens
        except ValueError as error:
            raise _unreadable() from error


def _headers(server: Server) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "user-agent": f"pensieve-chat/{pensieve.__version__}",
        **key_header(server),
    }


def _events(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    for data in event_data(lines(chunks)):
        try:
            event = parse_event(data)
        except ValueError as error:
            raise _unreadable() from error
        if event:
            yield event


def _read(stream: Iterable[StreamEvent]) -> Iterator[Event]:
    usage = Usage(input_tokens=0, output_tokens=0)
    model = signature = stop_reason = ""
    for event in stream:
        match event:
            case ContentBlockDelta(delta=SignatureDelta(signature=part)):
                signature += part
            case MessageStart(message=message):
                model, usage = message.model, message.usage
            case MessageDelta(delta=stop):
                stop_reason = stop.stop_reason
                usage = usage.model_copy(update=dict(event.usage))
            case MessageStop():
                yield StreamEnd(stop_reason, usage, model, signature)
                return
            case ErrorEnvelope(error=error):
                raise _error_of(error.message, is_busy=True)
            case _:
                yield from _content_events(event)
    raise ServerUnavailableError(
        "The connection ended before the answer did.", hint="Check the server:\n  pensieve status"
    )


def _content_events(event: StreamEvent) -> Iterator[Event]:
    match event:
        case ContentBlockDelta(delta=TextDelta(text=text)):
            yield Text(text)
        case ContentBlockDelta(delta=ThinkingDelta(thinking=text)):
            yield Thought(text)
        case ContentBlockStart(content_block=ThinkingContent()):
            yield Thought("")
        case Ping():
            yield Waiting()
        case _:
            pass


def _check(response: "httpx.Response") -> None:
    if response.is_success:
        return
    response.read()
    if response.status_code == 401:
        raise key_refused()
    raise _error_of(_message_of(response), is_busy=response.status_code in BUSY)


def _message_of(response: "httpx.Response") -> str:
    try:
        return ErrorEnvelope.model_validate_json(response.content).error.message
    except ValueError:
        return f"HTTP status {response.status_code}; it may not be a pensieve server."


def _error_of(message: str, *, is_busy: bool) -> PensieveError:
    if is_busy:
        hint = "Try again in a moment, or check the server:\n  pensieve status"
        return ServerUnavailableError(f"The server cannot answer now: {message}", hint=hint)
    if found := TOO_LONG.search(message):
        return PromptTooLongError(*map(int, found.groups()))
    if found := UNPROCESSABLE.search(message):
        return PromptUnprocessableError(*map(int, found.groups()))
    return RequestError(f"The server refused: {message}")


def _unreadable() -> ServerUnavailableError:
    return ServerUnavailableError(
        "The server's answer cannot be read; it may be of another version than this program.",
        hint="Restart the server:\n  pensieve restart",
    )


def _encodable(text: str) -> str:
    """Replace lone surrogates, which bytes that are not UTF-8 become when they are typed."""
    return text.encode("utf-8", "replace").decode()
