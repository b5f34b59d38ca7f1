"""Write the content blocks of one answer as message events; reply.py says what goes into them.

At most one block is open at a time.
"""

from dataclasses import dataclass
from typing import assert_never

from pensieve.api.base import new_id
from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    InputJsonDelta,
    MessageEvent,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.message import (
    AnswerContent,
    TextContent,
    ThinkingContent,
    ToolUseContent,
)
from pensieve.api.messages.signatures import signature_of


@dataclass(frozen=True, slots=True)
class BetweenBlocks:
    pass


@dataclass(frozen=True, slots=True)
class InText:
    pass


@dataclass(frozen=True, slots=True)
class InThinking:
    parts: list[str]  # the thought so far


@dataclass(frozen=True, slots=True)
class InToolUse:
    pass


State = BetweenBlocks | InText | InThinking | InToolUse


class BlockWriter:
    """Owns which block is open, and its index."""

    def __init__(self, *, hides_thoughts: bool) -> None:
        self._hides_thoughts = hides_thoughts  # they are only in the signature
        self._state: State = BetweenBlocks()
        self._index = -1
        self.has_tool_use = False

    def write_text(self, text: str) -> list[MessageEvent]:
        if not text:
            return []
        events: list[MessageEvent] = []
        if not isinstance(self._state, InText):
            events = self._open(InText(), TextContent(text=""))
        return [*events, self._delta(TextDelta(text=text))]

    def write_thought(self, text: str) -> list[MessageEvent]:
        events: list[MessageEvent] = []
        if not isinstance(self._state, InThinking):
            events = self._open(InThinking([]), ThinkingContent(thinking="", signature=""))
        assert isinstance(self._state, InThinking)
        self._state.parts.append(text)
        if not self._hides_thoughts:
            events.append(self._delta(ThinkingDelta(thinking=text)))
        return events

    def open_tool_use(self, name: str) -> list[MessageEvent]:
        self.has_tool_use = True
        tool_use = ToolUseContent(id=new_id("toolu"), name=name, input={})
        return self._open(InToolUse(), tool_use)

    def write_tool_input(self, json: str) -> list[MessageEvent]:
        assert isinstance(self._state, InToolUse)
        return [self._delta(InputJsonDelta(partial_json=json))]

    def close(self) -> list[MessageEvent]:
        """Close the open block, if any."""
        state, self._state = self._state, BetweenBlocks()
        stop = ContentBlockStop(index=self._index)
        match state:
            case BetweenBlocks():
                return []
            case InText() | InToolUse():
                return [stop]
            case InThinking(parts):
                thought = "".join(parts)
                signature = signature_of(thought, carries_text=self._hides_thoughts)
                return [self._delta(SignatureDelta(signature=signature)), stop]
            case _:
                assert_never(state)

    def _open(self, state: State, content: AnswerContent) -> list[MessageEvent]:
        closing = self.close()
        self._index += 1
        self._state = state
        return [*closing, ContentBlockStart(index=self._index, content_block=content)]

    def _delta(self, delta: Delta) -> ContentBlockDelta:
        return ContentBlockDelta(index=self._index, delta=delta)
