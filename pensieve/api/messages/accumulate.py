"""Message events folded into the `Message` that they describe: how a non-streaming answer is made."""

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
    """Owns the message while its events arrive. They come in the order that `events` tells."""

    def __init__(self) -> None:
        self._start: MessageStart | None = None
        self._end: MessageDelta | None = None
        self._blocks: list[_Block] = []

    def feed(self, event: MessageEvent) -> None:
        """Take the next event."""
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
        """The message, once its events have all been taken."""
        assert self._start is not None
        assert self._end is not None
        began = self._start.message
        return began.model_copy(
            update={
                "content": tuple(block.whole for block in self._blocks),
                "stop_reason": self._end.delta.stop_reason,
                "stop_sequence": self._end.delta.stop_sequence,
                "context_management": self._end.context_management,
                "usage": began.usage.model_copy(update=dict(self._end.usage)),
            }
        )


class _Block:
    """Owns one block's pieces."""

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
        said = "".join(self._parts)
        match self._opened:
            case TextContent():
                return TextContent(text=said)
            case ThinkingContent():
                return ThinkingContent(thinking=said, signature=self._signature)
            case ToolUseContent(id=name, name=tool):
                return ToolUseContent(id=name, name=tool, input=_input(said))
            case _:
                assert_never(self._opened)


def _input(said: str) -> dict[str, JsonValue]:
    """The input as far as it was said: an answer may be cut in the middle of it, as clients of streams see it too."""
    return cast("dict[str, JsonValue]", from_json(said, allow_partial=True)) if said else {}
