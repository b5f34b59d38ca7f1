"""Accumulate message events into a `Message`, for answers that are not streamed."""

from typing import assert_never, cast

from pydantic import JsonValue
from pydantic_core import from_json

from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    InputJsonDelta,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.message import (
    AnswerContent,
    Message,
    TextContent,
    ThinkingContent,
    ToolUseContent,
)


class MessageAccumulator:
    """Owns the message while its events arrive, in the order that events.py defines."""

    def __init__(self) -> None:
        self._start: MessageStart | None = None
        self._end: MessageDelta | None = None
        self._blocks: list[_Block] = []

    def feed(self, event: MessageEvent) -> None:
        match event:
            case MessageStart():
                self._start = event
            case ContentBlockStart():
                self._blocks.append(_Block(event.content_block))
            case ContentBlockDelta():
                self._blocks[event.index].add(event.delta)
            case MessageDelta():
                self._end = event
            case ContentBlockStop() | MessageStop():
                pass
            case _:
                assert_never(event)

    @property
    def message(self) -> Message:
        """Return the message. Requires all its events."""
        assert self._start is not None
        assert self._end is not None
        message = self._start.message
        return message.model_copy(
            update={
                "content": tuple(block.whole for block in self._blocks),
                "stop_reason": self._end.delta.stop_reason,
                "stop_sequence": self._end.delta.stop_sequence,
                "context_management": self._end.context_management,
                "usage": message.usage.model_copy(update=dict(self._end.usage)),
            }
        )


class _Block:
    def __init__(self, opened: AnswerContent) -> None:
        self._opened = opened
        self._parts: list[str] = []
        self._signature = ""

    def add(self, delta: Delta) -> None:
        match delta:
            case TextDelta(text=part) | ThinkingDelta(thinking=part):
                self._parts.append(part)
            case InputJsonDelta(partial_json=part):
                self._parts.append(part)
            case SignatureDelta(signature=signature):
                self._signature = signature
            case _:
                assert_never(delta)

    @property
    def whole(self) -> AnswerContent:
        content = "".join(self._parts)
        match self._opened:
            case TextContent():
                return TextContent(text=content)
            case ThinkingContent():
                return ThinkingContent(thinking=content, signature=self._signature)
            case ToolUseContent(id=name, name=tool):
                return ToolUseContent(id=name, name=tool, input=_input(content))
            case _:
                assert_never(self._opened)


def _input(json: str) -> dict[str, JsonValue]:
    # An answer may end within the input; clients of streams parse it as far as it goes, too.
    rest = _without_last_number(json)
    return cast("dict[str, JsonValue]", from_json(rest, allow_partial=True)) if rest else {}


def _without_last_number(json: str) -> str:
    """Remove a number at the end of an input that was cut: its beginning is another number."""
    rest = json.rstrip("0123456789+-.eE")
    return rest if json[len(rest) :].startswith(tuple("-0123456789")) else json
