"""Chat messages to turns of the Messages API."""

from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from pensieve.api.messages.content_blocks import (
    ThinkingBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Turn
from pensieve.errors import InvalidRequestError
from pensieve.openai.chat_request import ChatMessage, ToolCall
from pensieve.openai.content_parts import PartBlock, block_of
from pensieve.openai.turns import TurnBuilder, arguments_of


def turns_of(
    messages: Sequence[ChatMessage], model: str, *, sees: bool = False
) -> tuple[Turn, ...]:
    """sees: whether the model does.

    Raises `InvalidRequestError` for content that it does not read, and if there is none.
    """
    turns = TurnBuilder()
    for at, message in enumerate(messages):
        _add(turns, message, tuple(_content(message, f"messages.{at}", model, sees=sees)))
    finished = turns.finished()
    if not finished:
        raise InvalidRequestError("messages: at least one message must have content")
    return finished


def _add(turns: TurnBuilder, message: ChatMessage, content: Sequence[PartBlock]) -> None:
    match message.role:
        case "system" | "developer":
            turns.add_system(content)
        case "user":
            turns.add_user(content)
        case "assistant":
            turns.begin_answer()
            turns.add_answer((*_thoughts(message), *content, *_calls(turns, message)))
        case "tool" | "function":
            turns.add_result(message.tool_call_id, content)


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


def _content(message: ChatMessage, path: str, model: str, *, sees: bool) -> Iterator[PartBlock]:
    in_result = message.role in {"tool", "function"}
    for at, part in enumerate(message.content):
        block = block_of(part, f"{path}.content.{at}", model, in_result=in_result, sees=sees)
        if block is not None:
            yield block


def _named_input(call: ToolCall) -> tuple[str, dict[str, JsonValue]] | None:
    """Return the name and input of a call; None for a kind that is not known here."""
    if call.function is not None:
        return call.function.name, arguments_of(call.function.arguments)
    if call.custom is not None:
        return call.custom.name, {"input": call.custom.input}
    return None
