"""Message events folded into the `Message` that they describe: how a non-streaming answer is made."""

from typing import assert_never

from pensieve.api.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
)
from pensieve.api.message import Message, TextContent


class MessageFold:
    """Owns the message while its events arrive. They come in the order that `events` tells."""

    def __init__(self) -> None:
        self._start: MessageStart | None = None
        self._end: MessageDelta | None = None
        self._blocks: list[list[str]] = []

    def feed(self, event: MessageEvent) -> None:
        """Take the next event."""
        match event:
            case MessageStart():
                self._start = event
            case ContentBlockStart():
                self._blocks.append([])
            case ContentBlockDelta():
                self._blocks[event.index].append(event.delta.text)
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
                "content": tuple(TextContent(text="".join(parts)) for parts in self._blocks),
                "stop_reason": self._end.delta.stop_reason,
                "stop_sequence": self._end.delta.stop_sequence,
                "context_management": self._end.context_management,
                "usage": began.usage.model_copy(update=dict(self._end.usage)),
            }
        )
