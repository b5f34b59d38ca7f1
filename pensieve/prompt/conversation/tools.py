"""The tools of a conversation: which the model is told of at its beginning, which it may call now.

A tool whose loading is deferred is told of where a result refers to it, so that the prompt before that place stays as it was; one
that a system turn adds, where that turn stands. Only the hosted API runs server tools: they are left out.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pensieve.api.messages.content_blocks import (
    ToolChangeBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Conversation, Turn, decode
from pensieve.api.messages.tools import ClientTool, ComputerUseTool, CustomTool, ServerTool, Tool
from pensieve.dialects.dialect import ParameterForm, ToolSpec
from pensieve.dialects.grammar.schema_simplifier import held_schema
from pensieve.dialects.grammar.tagged_values import TaggedValues, tagged_values_of
from pensieve.dialects.schema_summary import CHARS_PER_TOKEN, chars_of, summarized
from pensieve.dialects.tool_presentation import presented_schema
from pensieve.prompt.conversation.client_tools import client_tool

_log = logging.getLogger("pensieve.prompt")

# What Claude Code has in the place of deferred tools.
PLACEHOLDER = "DeferredToolPlaceholder"
# Tools that would take more of the context than this are told of in few words.
MAX_CONTEXT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ToolSet:
    """shown: told of at the beginning. callable: what may be called now, by name. known: every tool as it is told of, by its name.

    held: the same tools as the client has them, which is what calls are held to. slots: of the parameters of tools that were
    called, where the form of arguments has slots. strict: where tools stand in the request whose input is promised to obey their schema, by name.
    """

    shown: tuple[ToolSpec, ...]
    callable: Mapping[str, ToolSpec]
    known: Mapping[str, ToolSpec]
    held: Mapping[str, ToolSpec]
    strict: Mapping[str, str]
    slots: Mapping[str, TaggedValues] = field(default_factory=dict[str, TaggedValues])


def tool_set_of(
    conversation: Conversation, context_tokens: int, form: ParameterForm | None = None
) -> ToolSet:
    """The tools of a conversation, for a model with so large a context. form: in which it writes arguments that are not JSON."""
    own = {tool.name: tool for tool in conversation.tools if _is_own(tool)}
    held = {name: _spec(tool) for name, tool in own.items()}
    held |= {tool.name: tool for tool in _inline_tools(conversation.messages)}
    known = {
        name: replace(tool, schema=presented_schema(tool.schema, form))
        for name, tool in held.items()
    }
    is_searched = any(
        isinstance(tool, ServerTool) and tool.is_search for tool in conversation.tools
    )
    loaded = [name for name, tool in own.items() if is_searched or not tool.defer_loading]
    is_compact = _are_large((known[name] for name in loaded), context_tokens)
    if is_compact:
        _log.info("%d tools are told of in few words: the model's context is small", len(loaded))
        known = {name: summarized(tool) for name, tool in known.items()}
    return ToolSet(
        shown=tuple(known[name] for name in loaded),
        callable={name: held[name] for name in _callable(loaded, known, conversation.messages)},
        known=known,
        held=held,
        strict={
            tool.name: f"tools.{at}.custom"
            for at, tool in enumerate(conversation.tools)
            if isinstance(tool, CustomTool) and tool.strict
        },
        slots=dict(_slots(conversation, held, form)),
    )


def _slots(
    conversation: Conversation, held: Mapping[str, ToolSpec], form: ParameterForm | None
) -> Iterator[tuple[str, TaggedValues]]:
    if form is None or form.quote is not None:
        return
    blocks = (block for turn in conversation.messages for block in turn.content)
    names = dict.fromkeys(block.name for block in blocks if isinstance(block, ToolUseBlock))
    for name in names:
        if name in held:
            yield name, tagged_values_of(held_schema(held[name].schema), form)


def _is_own(tool: Tool) -> bool:
    return not isinstance(tool, ServerTool | ComputerUseTool) and tool.name != PLACEHOLDER


def _spec(tool: Tool) -> ToolSpec:
    match tool:
        case CustomTool():
            return ToolSpec(tool.name, tool.description, tool.input_schema)
        case ClientTool():
            return client_tool(tool)
        case ServerTool() | ComputerUseTool():
            raise AssertionError("such a tool is not told of")


def _are_large(tools: Iterable[ToolSpec], context_tokens: int) -> bool:
    letters = sum(chars_of(tool.schema, tool.description) for tool in tools)
    return letters / CHARS_PER_TOKEN > context_tokens * MAX_CONTEXT_SHARE


def _callable(
    loaded: Iterable[str], known: Mapping[str, ToolSpec], turns: Iterable[Turn]
) -> list[str]:
    """Names in the order in which the tools came."""
    names = dict.fromkeys(loaded)
    for change, name in _changes(turns):
        if change == "tool_removal":
            names.pop(name, None)
        elif name in known:
            names[name] = None
    return list(names)


def _changes(turns: Iterable[Turn]) -> Iterator[tuple[str, str]]:
    """What the turns say of tools, in order: the kind of change, and the tool's name."""
    for turn in turns:
        for block in turn.content:
            if isinstance(block, ToolResultBlock):
                for part in block.content:
                    if isinstance(part, ToolReferenceBlock):
                        yield "tool_reference", part.tool_name
            elif isinstance(block, ToolChangeBlock):
                yield block.type, changed_name(block)


def changed_name(block: ToolChangeBlock) -> str:
    """The name of the tool that comes or goes."""
    name = block.tool.get("name", block.tool.get("tool_name"))
    return name if isinstance(name, str) else ""


def _inline_tools(turns: Iterable[Turn]) -> Iterator[ToolSpec]:
    """Tools that are defined where they come."""
    for turn in turns:
        for block in turn.content:
            if isinstance(block, ToolChangeBlock) and "input_schema" in block.tool:
                tool = decode(CustomTool, {**block.tool, "type": "custom"})
                yield ToolSpec(tool.name, tool.description, tool.input_schema)
