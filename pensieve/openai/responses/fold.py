"""Folds the message events of one answer into the events of a response, and the whole response.

However the events cut a text, the joined deltas are the same, and the whole response is what the
last event carries.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import assert_never

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
    ScoredTextDelta,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.message import (
    AnswerContent,
    DeltaUsage,
    StopReason,
    TextContent,
    ThinkingContent,
    ToolUseContent,
)
from pensieve.openai.responses.events import ResponseEvent, ResponseStreamEvent
from pensieve.openai.responses.item_writers import (
    CallWriter,
    CustomToolCallWriter,
    FunctionCallWriter,
    ItemWriter,
    MessageWriter,
    Place,
    ReasoningWriter,
)
from pensieve.openai.responses.response import (
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    OutputItem,
    OutputTokensDetails,
    ReasoningItem,
    Response,
    ResponseError,
    ResponseUsage,
)
from pensieve.openai.responses.tools import DeclaredTools

_CUT: frozenset[StopReason] = frozenset({"max_tokens", "model_context_window_exceeded"})


@dataclass(frozen=True, slots=True)
class FoldOptions:
    response: Response  # as it begins
    now: Callable[[], int]  # Unix seconds
    tools: DeclaredTools = field(default_factory=DeclaredTools)
    has_summary: bool = False  # thoughts are sent as summaries
    seals_thoughts: bool = False  # and in `encrypted_content` as well


class ResponseFold:
    """Owns one response while its message events arrive."""

    def __init__(self, options: FoldOptions) -> None:
        self._options = options
        self._numbers = count()
        self._response = options.response
        self._items: list[OutputItem] = []
        self._open: ItemWriter | None = None
        self._calls: list[CallWriter] = []
        self._signatures: dict[str, str] = {}  # of thoughts, by the id of their item

    @property
    def response(self) -> Response:
        """The response so far."""
        return self._response

    @property
    def is_ended(self) -> bool:
        return self._response.status != "in_progress"

    @property
    def stored_items(self) -> list[OutputItem]:
        """The output items, with the signatures under which their answer is stored."""
        return [
            item.model_copy(update={"encrypted_content": self._signatures[item.id]})
            if isinstance(item, ReasoningItem)
            else item
            for item in self._items
        ]

    def feed(self, events: Iterable[MessageEvent]) -> list[ResponseStreamEvent]:
        return [written for event in events for written in self._feed(event)]

    def in_progress(self) -> ResponseEvent:
        """Return an event for a silent stream."""
        return self._event("response.in_progress")

    def failed(self, error: ResponseError) -> ResponseEvent:
        """End the response. The item that is open stays out of it."""
        self._change(status="failed", error=error)
        return self._event("response.failed")

    def _feed(self, event: MessageEvent) -> list[ResponseStreamEvent]:
        match event:
            case MessageStart():
                return self._begin(event)
            case ContentBlockStart(content_block=block):
                closed = self._close("completed")
                self._open = self._writer(block)
                return [*closed, *self._open.open()]
            case ContentBlockDelta(delta=delta):
                return self._add(delta)
            case MessageDelta():
                return self._finish(event)
            case ContentBlockStop() | MessageStop():
                # An item ends when it is known whether the answer was cut off in it.
                return []
            case _:
                assert_never(event)

    def _begin(self, start: MessageStart) -> list[ResponseStreamEvent]:
        message = start.message
        self._change(id=message.id.replace("msg_", "resp_", 1), model=message.model)
        return [self._event("response.created"), self.in_progress()]

    def _writer(self, block: AnswerContent) -> ItemWriter:
        match block:
            case TextContent():
                return MessageWriter(self._place("msg"))
            case ThinkingContent():
                options = self._options
                return ReasoningWriter(
                    self._place("rs"),
                    is_summary=options.has_summary,
                    is_sealed=options.seals_thoughts,
                )
            case ToolUseContent(id=use_id, name=name):
                self._calls.append(self._call_writer(use_id, name))
                return self._calls[-1]
            case _:
                assert_never(block)

    def _call_writer(self, use_id: str, name: str) -> CallWriter:
        ref = self._options.tools.ref(name)
        if ref.kind == "custom":
            return CustomToolCallWriter(self._place("ctc"), ref, use_id)
        return FunctionCallWriter(self._place("fc"), ref, use_id)

    def _place(self, prefix: str) -> Place:
        index = len(self._items)
        item_id = f"{self._response.id.replace('resp', prefix, 1)}_{index}"
        return Place(item_id, index, self._next_number)

    def _next_number(self) -> int:
        return next(self._numbers)

    def _add(self, delta: Delta) -> list[ResponseStreamEvent]:
        assert self._open is not None
        match delta:
            case ScoredTextDelta(text=text, logprobs=logprobs):
                assert isinstance(self._open, MessageWriter)
                return self._open.add(text, logprobs)
            case TextDelta(text=text) | ThinkingDelta(thinking=text):
                return self._open.add(text)
            case InputJsonDelta(partial_json=text):
                return self._open.add(text)
            case SignatureDelta(signature=signature):
                assert isinstance(self._open, ReasoningWriter)
                self._open.signature = signature
                return []
            case _:
                assert_never(delta)

    def _close(self, status: ItemStatus) -> list[ResponseStreamEvent]:
        if (writer := self._open) is None:
            return []
        self._open = None
        if isinstance(writer, CallWriter) and writer.is_broken:
            status = "incomplete"
        events = writer.close(status)
        item = writer.item(status)
        self._items.append(item)
        if isinstance(writer, ReasoningWriter):
            self._signatures[item.id] = writer.signature
        self._change(output=tuple(self._items))
        return events

    def _finish(self, end: MessageDelta) -> list[ResponseStreamEvent]:
        is_cut = self._is_cut(end)
        closed = self._close("incomplete" if is_cut else "completed")
        self._change(usage=usage_of(end.usage))
        if is_cut:
            self._change(status="incomplete", incomplete_details=IncompleteDetails())
            return [*closed, self._event("response.incomplete")]
        self._change(status="completed", completed_at=self._options.now())
        return [*closed, self._event("response.completed")]

    def _is_cut(self, end: MessageDelta) -> bool:
        """Return whether the answer lacks something that its client could not see.

        Arguments that are no JSON can be seen: the client reports them to the model, which calls
        again, and Codex makes room in a full context before. An incomplete response would end its
        work. A text, or the input of a custom tool, does not show that it was cut off. A client
        that set a limit, which was reached, expects an incomplete response.
        """
        reason, limit = end.delta.stop_reason, self._response.max_output_tokens
        if reason not in _CUT:
            return False
        if limit is not None and end.usage.output_tokens >= limit:
            return True
        broken = [call for call in self._calls if call.is_broken]
        is_seen = bool(broken) and all(isinstance(call, FunctionCallWriter) for call in broken)
        # For "max_tokens" without a limit the model broke a call off by itself (reply.py).
        return not is_seen or (reason != "max_tokens" and self._open not in broken)

    def _change(self, **fields: object) -> None:
        self._response = self._response.model_copy(update=fields)

    def _event(self, kind: str) -> ResponseEvent:
        number = self._next_number()
        return ResponseEvent.model_validate(
            {"type": kind, "sequence_number": number, "response": self._response}
        )


def usage_of(usage: DeltaUsage) -> ResponseUsage:
    prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    return ResponseUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cache_read_input_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(
            reasoning_tokens=usage.output_tokens_details.thinking_tokens
        ),
        total_tokens=prompt + usage.output_tokens,
    )
