"""Chat messages to turns of the Messages API."""

from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from pensieve.api.messages.content_blocks import TextBlock, ThinkingBlock, ToolUseBlock
from pensieve.api.messages.request import Turn
from pensieve.errors import InvalidRequestError
from pensieve.openai.chat_request import ChatMessage, ContentPart, ToolCall
from pensieve.openai.turns import (
    UNREADABLE,
    TurnBuilder,
    arguments_of,
    text_block,
    unreadable,
    unreadable_note,
)


def turns_of(messages: Sequence[ChatMessage], model: str) -> tuple[Turn, ...]:
    """Raises `InvalidRequestError` for content that no text model reads, and if there is none."""
    turns = TurnBuilder()
    for at, message in enumerate(messages):
        is_result = message.role in {"tool", "function"}
        path = None if is_result else f"messages.{at}"
        _add(turns, message, tuple(_texts(message.content, path, model)))
    finished = turns.finished()
    if not finished:
        raise InvalidRequestError("messages: at least one message must have content")
    return finished


def _add(turns: TurnBuilder, message: ChatMessage, texts: Sequence[TextBlock]) -> None:
    match message.role:
        case "system" | "developer":
            turns.add_system(texts)
        case "user":
            turns.add_user(texts)
        case "assistant":
            turns.begin_answer()
            turns.add_answer((*_thoughts(message), *texts, *_calls(turns, message)))
        case "tool" | "function":
            turns.add_result(message.tool_call_id, texts)


def _calls(turns: TurnBuilder, message: ChatMessage) -> Iterator[ToolUseBlock]:
    calls = message.tool_calls
    if message.function_call is not None:
        calls = (*calls, ToolCall(function=message.function_call))
    for call in calls:
        if (named := _named_input(call)) is not None:
            yield turns.new_call(call.id, *named)


def _thoughts(message: ChatMessage) -> Iterator[ThinkingBlock]:
    if thought := message.thought:
        yield ThinkingBlock(type="thinking", thinking=thought)


def _texts(parts: Sequence[ContentPart], path: str | None, model: str) -> Iterator[TextBlock]:
    """path: None for a result, in which a note takes the place of what cannot be read."""
    for at, part in enumerate(parts):
        if kind := UNREADABLE.get(part.type):
            if path is not None:
                raise unreadable(f"{path}.content.{at}.type", kind, model)
            yield unreadable_note(kind)
        elif text := part.text or part.refusal:
            yield text_block(text)


def _named_input(call: ToolCall) -> tuple[str, dict[str, JsonValue]] | None:
    """Return the name and input of a call; None for a kind that is not known here."""
    if call.function is not None:
        return call.function.name, arguments_of(call.function.arguments)
    if call.custom is not None:
        return call.custom.name, {"input": call.custom.input}
    return None
