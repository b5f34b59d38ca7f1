"""Events of the answer parser: pieces of text, thoughts and tool calls. Knows no wire format."""

from dataclasses import dataclass, field

from pensieve.reply.spans import Span


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    # Where it is in the answer as generated, in order: gaps are blanks and marks that were dropped.
    spans: tuple[Span, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    json: str  # at any moment, a call's pieces so far are the beginning of a JSON object


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    is_whole: bool = True  # False: the model wrote an invalid input, and nothing follows


ParseEvent = Text | Thought | ToolCallStart | ToolCallDelta | ToolCallEnd
