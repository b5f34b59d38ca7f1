"""What an answer says, once its marks are read: text, thoughts, and calls of tools piece by piece."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """More of a thought."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool is called; its input follows."""

    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the input: all of a call's pieces so far begin a JSON object."""

    json: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """There is no more of the call. is_whole: its input is; a model may break it off."""

    is_whole: bool = True


ParseEvent = Text | Thought | ToolCallStart | ToolCallDelta | ToolCallEnd


def coalesce(said: Sequence[ParseEvent]) -> list[ParseEvent]:
    """Pieces of one kind that follow each other put together."""
    whole: list[ParseEvent] = []
    for piece in said:
        match whole[-1:], piece:
            case [Text(before)], Text(text):
                whole[-1] = Text(before + text)
            case [Thought(before)], Thought(text):
                whole[-1] = Thought(before + text)
            case [ToolCallDelta(before)], ToolCallDelta(json):
                whole[-1] = ToolCallDelta(before + json)
            case _:
                whole.append(piece)
    return whole
