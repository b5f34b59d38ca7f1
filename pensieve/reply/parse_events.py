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
class CallBegan:
    """A tool is called; its input follows."""

    name: str


@dataclass(frozen=True, slots=True)
class CallInput:
    """More of the input: all of a call's pieces so far begin a JSON object."""

    json: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """There is no more of the call. is_whole: its input is; a model may break it off."""

    is_whole: bool = True


Said = Text | Thought | CallBegan | CallInput | CallEnded


def merged(said: Sequence[Said]) -> list[Said]:
    """Pieces of one kind that follow each other put together."""
    whole: list[Said] = []
    for piece in said:
        match whole[-1:], piece:
            case [Text(before)], Text(text):
                whole[-1] = Text(before + text)
            case [Thought(before)], Thought(text):
                whole[-1] = Thought(before + text)
            case [CallInput(before)], CallInput(json):
                whole[-1] = CallInput(before + json)
            case _:
                whole.append(piece)
    return whole
