"""Input items to turns of the Messages API."""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import assert_never

from pydantic import JsonValue

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ThinkingBlock,
    ToolChangeBlock,
)
from pensieve.api.messages.request import Turn
from pensieve.api.messages.signatures import bare_signature, thought_in
from pensieve.api.messages.tools import CustomTool
from pensieve.openai.content_parts import ContentPart, PartBlock, block_of
from pensieve.openai.responses.items import (
    AddedTools,
    BuiltInCall,
    CallOutput,
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    decode_at,
    item_of,
)
from pensieve.openai.responses.request import JsonObject
from pensieve.openai.responses.tools import DeclaredTools, declared_tools
from pensieve.openai.turns import TurnBuilder, arguments_of, text_block

_log = logging.getLogger("pensieve.openai")


def turns_of(
    input_items: Sequence[JsonObject],
    tools: DeclaredTools,
    model: str,
    first: int = 0,
    *,
    sees: bool = False,
) -> tuple[Turn, ...]:
    """Return the conversation; empty without any content.

    first: the index of the item that the request calls `input[0]`; those before it are stored ones.
    sees: whether the model does. Raises `InvalidRequestError`, also for content that it does not
    read.
    """
    history = _History(tools, model, sees=sees)
    ignored: list[str] = []
    for at, fields in enumerate(input_items):
        path = f"input.{at - first}"
        if (item := item_of(fields, path)) is not None:
            history.add(item, path)
        else:
            ignored.append(path)
    if ignored:
        _log.info("ignoring %d items that are unknown here, from %s on", len(ignored), ignored[0])
    return history.turns.finished()


class _History:
    def __init__(self, tools: DeclaredTools, model: str, *, sees: bool) -> None:
        self._tools = tools
        self._block_of = partial(block_of, model=model, sees=sees)
        self.turns = TurnBuilder()

    def add(self, item: Item, path: str) -> None:
        match item:
            case Message():
                self._add_message(item, path)
            case FunctionCall(name=name, namespace=namespace):
                model_name = self._tools.model_name(name, namespace)
                self._add_call(item.call_id, model_name, arguments_of(item.arguments))
            case CustomToolCall(name=name, namespace=namespace):
                model_name = self._tools.model_name(name, namespace)
                self._add_call(item.call_id, model_name, {"input": item.input})
            case BuiltInCall():
                self._add_call(item.call_id, item.name, item.input)
            case CallOutput(call_id=call_id, output=output):
                self.turns.add_result(call_id, tuple(self._output(output, path)))
            case Reasoning():
                self._add_answer(tuple(_thoughts(item)))
            case AddedTools(tools=tools):
                added = declared_tools(tools, f"{path}.tools").tools
                self.turns.add_system(tuple(map(_addition, added)))
            case _:
                assert_never(item)

    def _add_message(self, message: Message, path: str) -> None:
        content = tuple(self._content(message.content, path))
        match message.role:
            case "user":
                self.turns.add_user(content)
            case "assistant":
                self._add_answer(content)
            case "system" | "developer":
                self.turns.add_system(content)

    def _add_call(self, call_id: str, name: str, tool_input: JsonObject) -> None:
        self.turns.begin_answer()
        self.turns.extend_answer([self.turns.new_call(call_id, name, tool_input)])

    def _add_answer(self, blocks: Sequence[ContentBlock]) -> None:
        self.turns.begin_answer()
        # An answer is found in the cache by all its blocks, so they are of one turn.
        self.turns.extend_answer(blocks)

    def _content(self, parts: Sequence[ContentPart], path: str) -> Iterator[PartBlock]:
        for at, part in enumerate(parts):
            block = self._block_of(part, f"{path}.content.{at}", in_result=False)
            if block is not None:
                yield block

    def _output(self, output: JsonValue, path: str) -> Iterator[PartBlock]:
        """Yield the content of a result, with a note in the place of what cannot be read."""
        if not isinstance(output, list):
            yield text_block(output if isinstance(output, str) else json.dumps(output))
            return
        for at, fields in enumerate(output):
            if not isinstance(fields, dict) or "type" not in fields:
                yield text_block(json.dumps(fields))
                continue
            part = decode_at(f"{path}.output.{at}", ContentPart, fields)
            block = self._block_of(part, f"{path}.output.{at}", in_result=True)
            if block is not None:
                yield block


def _thoughts(item: Reasoning) -> Iterator[ContentBlock]:
    """Yield the thought, under the signature by which its answer is stored."""
    sealed = item.encrypted_content
    thought = thought_in(sealed) or item.text
    if sealed or thought:
        signature = bare_signature(sealed)
        yield ThinkingBlock(type="thinking", thinking=thought, signature=signature)


def _addition(tool: CustomTool) -> ToolChangeBlock:
    included = {"name", "description", "input_schema", "input_grammar"}
    fields = tool.model_dump(include=included, exclude_none=True)
    return ToolChangeBlock(type="tool_addition", tool=fields)
