"""Input items to turns of the Messages API."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import assert_never, cast

from pydantic import JsonValue

from pensieve.api.json_body import decode
from pensieve.api.messages.content_blocks import (
    ContentBlock,
    TextBlock,
    ThinkingBlock,
    ToolChangeBlock,
)
from pensieve.api.messages.request import Turn
from pensieve.api.messages.signatures import bare_signature, thought_in
from pensieve.api.messages.tools import CustomTool
from pensieve.errors import InvalidRequestError
from pensieve.openai.responses.items import (
    AddedTools,
    BuiltInCall,
    CallOutput,
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    Part,
    Reasoning,
    decode_at,
    item_of,
    kind_of,
)
from pensieve.openai.responses.request import JsonObject
from pensieve.openai.responses.tools import DeclaredTools, declared_tools
from pensieve.openai.responses.turns import TurnBuilder, text_block

_log = logging.getLogger("pensieve.openai")

# What only other models read, by kind of part.
_UNREADABLE = {"input_image": "image", "input_file": "file", "input_audio": "audio"}


def turns_of(
    input_items: Sequence[JsonObject], tools: DeclaredTools, model: str, first: int = 0
) -> tuple[Turn, ...]:
    """Return the conversation; empty without any content.

    first: the index of the item that the request calls `input[0]`; those before it are stored ones.
    Raises `InvalidRequestError`, also for content that no text model reads.
    """
    history = _History(tools, model)
    for at, fields in enumerate(input_items):
        path = f"input.{at - first}"
        if (item := item_of(fields, path)) is not None:
            history.add(item, path)
        else:
            _log.info("ignoring an input item that is unknown here, of type %.60r", kind_of(fields))
    return history.turns.finished()


class _History:
    def __init__(self, tools: DeclaredTools, model: str) -> None:
        self._tools = tools
        self._model = model
        self.turns = TurnBuilder()

    def add(self, item: Item, path: str) -> None:
        match item:
            case Message():
                self._add_message(item, path)
            case FunctionCall(call_id=call_id, name=name, namespace=namespace):
                model_name = self._tools.model_name(name, namespace)
                self.turns.add_call(call_id, model_name, _arguments(item))
            case CustomToolCall(call_id=call_id, name=name, namespace=namespace):
                model_name = self._tools.model_name(name, namespace)
                self.turns.add_call(call_id, model_name, {"input": item.input})
            case BuiltInCall():
                self.turns.add_call(item.call_id, item.name, item.input)
            case CallOutput(call_id=call_id, output=output):
                self.turns.add_result(call_id, tuple(_output_texts(output, path)))
            case Reasoning():
                self.turns.add_answer(tuple(_thoughts(item)))
            case AddedTools(tools=tools):
                added = declared_tools(tools, f"{path}.tools").tools
                self.turns.add_system(tuple(map(_addition, added)))
            case _:
                assert_never(item)

    def _add_message(self, message: Message, path: str) -> None:
        texts = tuple(_texts(message.content, path, self._model))
        match message.role:
            case "user":
                self.turns.add_user(texts)
            case "assistant":
                self.turns.add_answer(texts)
            case "system" | "developer":
                self.turns.add_system(texts)


def _texts(parts: Sequence[Part], path: str, model: str) -> Iterator[TextBlock]:
    for at, part in enumerate(parts):
        if kind := _UNREADABLE.get(part.type):
            raise InvalidRequestError(
                f"{path}.content.{at}.type: Could not process {kind}: model '{model}' does not"
                f" support {kind} input"
            )
        if text := part.text or part.refusal:
            yield text_block(text)


def _thoughts(item: Reasoning) -> Iterator[ContentBlock]:
    """Yield the thought, under the signature by which its answer is stored."""
    sealed = item.encrypted_content
    thought = thought_in(sealed) or item.text
    if sealed or thought:
        signature = bare_signature(sealed)
        yield ThinkingBlock(type="thinking", thinking=thought, signature=signature)


def _arguments(call: FunctionCall) -> JsonObject:
    """Return the arguments as an object. Text that is none, as of a cut answer, stays text."""
    arguments = call.arguments
    if isinstance(arguments, str):
        with suppress(InvalidRequestError):
            arguments = cast("JsonValue", decode(arguments.encode()))
    if isinstance(arguments, dict):
        return arguments
    return {"arguments": arguments} if arguments else {}


def _output_texts(output: JsonValue, path: str) -> Iterator[TextBlock]:
    """Yield the texts of a result. An image in it would fail every later request of a session, so
    the model is told instead.
    """
    if not isinstance(output, list):
        yield text_block(output if isinstance(output, str) else json.dumps(output))
        return
    for at, fields in enumerate(output):
        if not isinstance(fields, dict) or "type" not in fields:
            yield text_block(json.dumps(fields))
            continue
        part = decode_at(f"{path}.output.{at}", Part, fields)
        if kind := _UNREADABLE.get(part.type):
            yield text_block(f"[{kind} that this model cannot read]")
        elif part.text:
            yield text_block(part.text)


def _addition(tool: CustomTool) -> ToolChangeBlock:
    fields = tool.model_dump(include={"name", "description", "input_schema"})
    return ToolChangeBlock(type="tool_addition", tool=fields)
