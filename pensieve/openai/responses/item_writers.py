"""Write the events of one output item: how each kind of item opens, grows and closes.

fold.py decides which item is open.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pensieve.api.messages.logprobs import TextLogprob
from pensieve.api.messages.signatures import with_text
from pensieve.openai.calls import call_id, is_whole, text_input
from pensieve.openai.responses.events import (
    ArgumentsDone,
    ContentPartEvent,
    CustomToolCallDelta,
    FunctionCallDelta,
    InputDone,
    OutputItemEvent,
    OutputTextDelta,
    OutputTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseStreamEvent,
    SummaryPartEvent,
    SummaryTextDelta,
    SummaryTextDone,
)
from pensieve.openai.responses.response import (
    CustomToolCallItem,
    FunctionCallItem,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
)
from pensieve.openai.responses.tools import ToolRef

Event = ResponseStreamEvent
_EventT = TypeVar("_EventT", bound=Event)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item is in its response, and in its stream."""

    item_id: str
    output_index: int
    next_number: Callable[[], int]

    def event(self, kind: type[_EventT], **fields: object) -> _EventT:
        place = {"item_id": self.item_id, "output_index": self.output_index}
        return kind.model_validate({"sequence_number": self.next_number(), **place, **fields})

    def added(self, item: OutputItem) -> Event:
        return self.event(OutputItemEvent, type="response.output_item.added", item=item)

    def done(self, item: OutputItem) -> Event:
        return self.event(OutputItemEvent, type="response.output_item.done", item=item)


class ItemWriter(Protocol):
    def open(self) -> list[Event]: ...

    def add(self, text: str) -> list[Event]: ...

    def close(self, status: ItemStatus) -> list[Event]: ...

    def item(self, status: ItemStatus) -> OutputItem:
        """Return the item with all that was added."""
        ...


# Items with one text: messages and thoughts.


@dataclass(frozen=True, slots=True)
class TextEvents:
    """The events of one kind of text."""

    part: type[OutputText | ReasoningText | SummaryText]
    part_event: type[ContentPartEvent | SummaryPartEvent]
    part_type: str
    delta: type[OutputTextDelta | ReasoningTextDelta | SummaryTextDelta]
    done: type[OutputTextDone | ReasoningTextDone | SummaryTextDone]


_OUTPUT = TextEvents(
    OutputText, ContentPartEvent, "response.content_part", OutputTextDelta, OutputTextDone
)
_THOUGHT = TextEvents(
    ReasoningText, ContentPartEvent, "response.content_part", ReasoningTextDelta, ReasoningTextDone
)
_SUMMARY = TextEvents(
    SummaryText,
    SummaryPartEvent,
    "response.reasoning_summary_part",
    SummaryTextDelta,
    SummaryTextDone,
)


class TextWriter:
    """Writes the events of an item's only text."""

    def __init__(self, place: Place, events: TextEvents) -> None:
        self._place = place
        self._events = events
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def open(self) -> list[Event]:
        return [self._part("added", "")]

    def add(self, text: str, **fields: object) -> list[Event]:
        self._texts.append(text)
        return [self._place.event(self._events.delta, delta=text, **fields)]

    def close(self, **fields: object) -> list[Event]:
        done = self._place.event(self._events.done, text=self.text, **fields)
        return [done, self._part("done", self.text, **fields)]

    def _part(self, change: str, text: str, **fields: object) -> Event:
        events = self._events
        kind = f"{events.part_type}.{change}"
        part = events.part.model_validate({"text": text, **fields})
        return self._place.event(events.part_event, type=kind, part=part)


class MessageWriter:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._text = TextWriter(place, _OUTPUT)
        self._logprobs: list[TextLogprob] = []

    def open(self) -> list[Event]:
        item = MessageItem(id=self._place.item_id, status="in_progress")
        return [self._place.added(item), *self._text.open()]

    def add(self, text: str, logprobs: Sequence[TextLogprob] = ()) -> list[Event]:
        self._logprobs += logprobs
        return self._text.add(text, logprobs=logprobs)

    def close(self, status: ItemStatus) -> list[Event]:
        return [*self._text.close(logprobs=self._logprobs), self._place.done(self.item(status))]

    def item(self, status: ItemStatus) -> MessageItem:
        content = (OutputText(text=self._text.text, logprobs=tuple(self._logprobs)),)
        return MessageItem(id=self._place.item_id, status=status, content=content)


class ReasoningWriter:
    def __init__(self, place: Place, *, is_summary: bool, is_sealed: bool) -> None:
        self._place = place
        self._text = TextWriter(place, _SUMMARY if is_summary else _THOUGHT)
        self._is_summary = is_summary
        self._is_sealed = is_sealed
        self.signature = ""  # known at the end

    def open(self) -> list[Event]:
        item = ReasoningItem(id=self._place.item_id, status="in_progress")
        return [self._place.added(item), *self._text.open()]

    def add(self, text: str) -> list[Event]:
        return self._text.add(text)

    def close(self, status: ItemStatus) -> list[Event]:
        return [*self._text.close(), self._place.done(self.item(status))]

    def item(self, status: ItemStatus) -> ReasoningItem:
        text = self._text.text
        return ReasoningItem(
            id=self._place.item_id,
            status=status,
            summary=(SummaryText(text=text),) if self._is_summary else (),
            content=None if self._is_summary else (ReasoningText(text=text),),
            encrypted_content=with_text(self.signature, text) if self._is_sealed else None,
        )


# Calls.


class FunctionCallWriter:
    def __init__(self, place: Place, ref: ToolRef, use_id: str) -> None:
        self._place = place
        self._ref = ref
        self._use_id = use_id
        self._pieces: list[str] = []

    @property
    def is_broken(self) -> bool:
        return not is_whole("".join(self._pieces))

    def open(self) -> list[Event]:
        return [self._place.added(self._item("", "in_progress"))]

    def add(self, text: str) -> list[Event]:
        self._pieces.append(text)
        return [self._place.event(FunctionCallDelta, delta=text)]

    def close(self, status: ItemStatus) -> list[Event]:
        arguments = "".join(self._pieces)
        done = self._place.event(ArgumentsDone, name=self._ref.name, arguments=arguments)
        return [done, self._place.done(self.item(status))]

    def item(self, status: ItemStatus) -> FunctionCallItem:
        return self._item("".join(self._pieces), status)

    def _item(self, arguments: str, status: ItemStatus) -> FunctionCallItem:
        return FunctionCallItem(
            id=self._place.item_id,
            status=status,
            call_id=call_id(self._use_id),
            name=self._ref.name,
            namespace=self._ref.namespace,
            arguments=arguments,
        )


class CustomToolCallWriter:
    """Writes the input of a custom tool, which the model writes as the text in an object."""

    def __init__(self, place: Place, ref: ToolRef, use_id: str) -> None:
        self._place = place
        self._ref = ref
        self._use_id = use_id
        self._pieces: list[str] = []

    @property
    def is_broken(self) -> bool:
        return not is_whole("".join(self._pieces))

    def open(self) -> list[Event]:
        return [self._place.added(self._item("", "in_progress"))]

    def add(self, text: str) -> list[Event]:
        # The input is sent when it is whole: no client shows its beginning.
        self._pieces.append(text)
        return []

    def close(self, status: ItemStatus) -> list[Event]:
        item = self.item(status)
        return [
            self._place.event(CustomToolCallDelta, delta=item.input),
            self._place.event(InputDone, input=item.input),
            self._place.done(item),
        ]

    def item(self, status: ItemStatus) -> CustomToolCallItem:
        return self._item(text_input("".join(self._pieces)), status)

    def _item(self, text: str, status: ItemStatus) -> CustomToolCallItem:
        return CustomToolCallItem(
            id=self._place.item_id,
            status=status,
            call_id=call_id(self._use_id),
            name=self._ref.name,
            namespace=self._ref.namespace,
            input=text,
        )


CallWriter = FunctionCallWriter | CustomToolCallWriter
