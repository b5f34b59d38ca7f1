"""Chat messages to turns of the Messages API, in which every call has exactly one result.

Agents that were interrupted leave calls without results and results without calls, which would fail
every later request of their session: a missing result is supplied, an orphan is dropped. Calls and
results are matched within one answer, as some servers give the same ids again.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import cast

from pydantic import JsonValue

from pensieve.api.json_body import decode
from pensieve.api.messages.content_blocks import (
    ContentBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Turn
from pensieve.errors import InvalidRequestError
from pensieve.openai.call_ids import tool_use_id
from pensieve.openai.chat_request import ChatMessage, ContentPart, FunctionCall, ToolCall

_log = logging.getLogger("pensieve.openai")

NO_RESULT = "There is no result: the call was interrupted."
# What only other models read, by kind of part.
_UNREADABLE = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "file": "file",
    "input_file": "file",
}


def turns_of(messages: Sequence[ChatMessage], model: str) -> tuple[Turn, ...]:
    """Raises `InvalidRequestError` for content that no text model reads, and if there is none."""
    history = _History(model)
    for at, message in enumerate(messages):
        history.add(message, f"messages.{at}")
    turns = history.finished()
    if not turns:
        raise InvalidRequestError("messages: at least one message must have content")
    return _with_user(turns)


def _with_user(turns: list[Turn]) -> tuple[Turn, ...]:
    """Make the last system turn the user's if there are no others: no template begins without."""
    if all(turn.role == "system" for turn in turns):
        turns[-1] = turns[-1].model_copy(update={"role": "user"})
    return tuple(turns)


class _History:
    """Owns the turns so far and the calls of the last answer that have no result yet."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._turns: list[Turn] = []
        self._open: list[tuple[str, str]] = []  # the client's id and ours
        self._ids: set[str] = set()  # of all calls
        self._has_result = False  # since the last answer

    def add(self, message: ChatMessage, path: str) -> None:
        texts = tuple(_texts(message.content, path, self._model))
        match message.role:
            case "system" | "developer":
                self._append("system", texts)
            case "user":
                self._close()
                self._append("user", texts)
            case "assistant":
                if self._has_result:
                    self._close()
                self._append("assistant", (*_thoughts(message), *texts, *self._uses(message)))
            case "tool" | "function":
                self._add_result(message.tool_call_id, texts)

    def finished(self) -> list[Turn]:
        self._close()
        return self._turns

    def _append(self, role: str, blocks: Sequence[ContentBlock]) -> None:
        if blocks:
            self._turns.append(Turn.model_construct(role=role, content=tuple(blocks)))

    def _uses(self, message: ChatMessage) -> Iterator[ToolUseBlock]:
        calls = message.tool_calls
        if message.function_call is not None:
            calls = (*calls, ToolCall(function=message.function_call))
        for call in calls:
            if (named := _named_input(call)) is not None:
                use_id = self._new_id(call.id)
                self._open.append((call.id, use_id))
                yield ToolUseBlock(type="tool_use", id=use_id, name=named[0], input=named[1])

    def _new_id(self, call_id: str) -> str:
        use_id = tool_use_id(call_id) if call_id else f"call_{len(self._ids)}"
        if use_id in self._ids:
            use_id = f"{use_id}.{len(self._ids)}"
        self._ids.add(use_id)
        return use_id

    def _add_result(self, call_id: str, texts: tuple[TextBlock, ...]) -> None:
        matches = [pair for pair in self._open if pair[0] == call_id or not call_id]
        if not matches:
            _log.warning("ignoring a tool message without a call, which has the id %.60r", call_id)
            return
        self._open.remove(matches[0])
        self._has_result = True
        self._append("user", [_result(matches[0][1], texts)])

    def _close(self) -> None:
        """Supply the results that are missing."""
        missing = [_result(use_id, (_text(NO_RESULT),), is_error=True) for _, use_id in self._open]
        if missing:
            _log.warning("%d tool calls have no result, telling the model so", len(missing))
        self._append("user", missing)
        self._open, self._has_result = [], False


def _text(text: str) -> TextBlock:
    return TextBlock(type="text", text=text)


def _result(
    use_id: str, texts: tuple[TextBlock, ...], *, is_error: bool = False
) -> ToolResultBlock:
    return ToolResultBlock(type="tool_result", tool_use_id=use_id, content=texts, is_error=is_error)


def _thoughts(message: ChatMessage) -> Iterator[ThinkingBlock]:
    if thought := message.thought:
        yield ThinkingBlock(type="thinking", thinking=thought)


def _texts(parts: Sequence[ContentPart], path: str, model: str) -> Iterator[TextBlock]:
    for at, part in enumerate(parts):
        if kind := _UNREADABLE.get(part.type):
            raise InvalidRequestError(
                f"{path}.content.{at}.type: Could not process {kind}: model '{model}' does not"
                f" support {kind} input"
            )
        if text := part.text or part.refusal:
            yield _text(text)


def _named_input(call: ToolCall) -> tuple[str, dict[str, JsonValue]] | None:
    """Return the name and input of a call; None for a kind that is not known here."""
    if call.function is not None:
        return call.function.name, _arguments(call.function)
    if call.custom is not None:
        return call.custom.name, {"input": call.custom.input}
    return None


def _arguments(call: FunctionCall) -> dict[str, JsonValue]:
    """Return the arguments as an object. Text that is none, as of a cut answer, stays text."""
    arguments = call.arguments
    if isinstance(arguments, str):
        with suppress(InvalidRequestError):
            arguments = cast("JsonValue", decode(arguments.encode()))
    if isinstance(arguments, dict):
        return arguments
    return {"arguments": arguments} if arguments else {}
