"""Determine which tools the prompt lists at its start, and which may be called now.

A deferred tool is described where a result refers to it, so that the prompt before stays unchanged;
a tool that a system turn adds, in that turn. Only the hosted API runs server tools: they are left
out.
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
from pensieve.api.messages.tools import (
    ClientTool,
    ComputerUseTool,
    CustomTool,
    ServerTool,
    TextTool,
    Tool,
)
from pensieve.dialects.dialect import InputGrammar, ParameterForm, ToolSpec
from pensieve.dialects.grammar.schema_simplifier import arguments_schema
from pensieve.dialects.grammar.tagged_values import TaggedValues, tagged_values_of
from pensieve.dialects.schema_summary import CHARS_PER_TOKEN, chars_of, summarized
from pensieve.dialects.tool_presentation import presented_schema
from pensieve.prompt.conversation.client_tools import client_tool

_log = logging.getLogger("pensieve.prompt")

# Claude Code sends this in place of deferred tools.
PLACEHOLDER = "DeferredToolPlaceholder"
# Tools that would take a larger share of the context are summarized.
MAX_CONTEXT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ToolSet:
    listed: tuple[ToolSpec, ...] = ()  # at the start of the prompt
    # The others are by name. Callable now, as declared.
    callable: Mapping[str, ToolSpec] = field(default_factory=dict[str, ToolSpec])
    # All tools as the model sees them.
    presented: Mapping[str, ToolSpec] = field(default_factory=dict[str, ToolSpec])
    # All as the client defined them; calls are validated by these.
    declared: Mapping[str, ToolSpec] = field(default_factory=dict[str, ToolSpec])
    # Path in the request of each tool with `strict`, and with a grammar for its input.
    strict: Mapping[str, str] = field(default_factory=dict[str, str])
    input_grammars: Mapping[str, str] = field(default_factory=dict[str, str])
    # Of called tools: how values are written, if arguments are written between tags.
    slots: Mapping[str, TaggedValues] = field(default_factory=dict[str, TaggedValues])


def tool_set_of(
    conversation: Conversation, context_tokens: int, form: ParameterForm | None = None
) -> ToolSet:
    """Return the tools of a conversation.

    form: how the model writes arguments, if not as JSON.
    """
    offered = {tool.name: tool for tool in conversation.tools if _is_offered(tool)}
    declared = {name: _spec(tool) for name, tool in offered.items()}
    declared |= {tool.name: tool for tool in _inline_tools(conversation.messages)}
    presented = {
        name: replace(tool, schema=presented_schema(tool.schema, form))
        for name, tool in declared.items()
    }
    is_searched = any(
        isinstance(tool, ServerTool) and tool.is_search for tool in conversation.tools
    )
    loaded = [name for name, tool in offered.items() if is_searched or not tool.defer_loading]
    is_compact = _are_large((presented[name] for name in loaded), context_tokens)
    if is_compact:
        _log.info(
            "%d tools are too long for the model's context, sending summaries of them", len(loaded)
        )
        presented = {name: summarized(tool) for name, tool in presented.items()}
    return ToolSet(
        listed=tuple(presented[name] for name in loaded),
        callable={
            name: declared[name] for name in _callable(loaded, presented, conversation.messages)
        },
        presented=presented,
        declared=declared,
        strict={
            tool.name: f"tools.{at}.custom"
            for at, tool in enumerate(conversation.tools)
            if isinstance(tool, CustomTool) and tool.strict
        },
        input_grammars={
            tool.name: f"tools.{at}.custom.input_grammar"
            for at, tool in enumerate(conversation.tools)
            if isinstance(tool, TextTool) and tool.input_grammar is not None
        },
        slots=dict(_slots(conversation, declared, form)),
    )


def _slots(
    conversation: Conversation, declared: Mapping[str, ToolSpec], form: ParameterForm | None
) -> Iterator[tuple[str, TaggedValues]]:
    if form is None or form.quote is not None:
        return
    blocks = (block for turn in conversation.messages for block in turn.content)
    names = dict.fromkeys(block.name for block in blocks if isinstance(block, ToolUseBlock))
    for name in names:
        if name in declared:
            yield name, tagged_values_of(arguments_schema(declared[name].schema), form)


def _is_offered(tool: Tool) -> bool:
    return not isinstance(tool, ServerTool | ComputerUseTool) and tool.name != PLACEHOLDER


def _spec(tool: Tool) -> ToolSpec:
    match tool:
        case CustomTool():
            return _custom_spec(tool)
        case ClientTool():
            return client_tool(tool)
        case ServerTool() | ComputerUseTool():
            raise AssertionError("models are not offered such tools")


def _custom_spec(tool: CustomTool) -> ToolSpec:
    source = tool.input_grammar if isinstance(tool, TextTool) else None
    grammar = source and InputGrammar(source.syntax, source.definition)
    return ToolSpec(tool.name, tool.description, tool.input_schema, grammar)


def _are_large(tools: Iterable[ToolSpec], context_tokens: int) -> bool:
    chars = sum(chars_of(tool.schema, tool.description) for tool in tools)
    return chars / CHARS_PER_TOKEN > context_tokens * MAX_CONTEXT_SHARE


def _callable(
    loaded: Iterable[str], presented: Mapping[str, ToolSpec], turns: Iterable[Turn]
) -> list[str]:
    """Return names in the order in which the tools were added."""
    names = dict.fromkeys(loaded)
    for change, name in _changes(turns):
        if change == "tool_removal":
            names.pop(name, None)
        elif name in presented:
            names[name] = None
    return list(names)


def _changes(turns: Iterable[Turn]) -> Iterator[tuple[str, str]]:
    """Yield the kind of each change and the tool's name, in order."""
    for turn in turns:
        for block in turn.content:
            if isinstance(block, ToolResultBlock):
                for part in block.content:
                    if isinstance(part, ToolReferenceBlock):
                        yield "tool_reference", part.tool_name
            elif isinstance(block, ToolChangeBlock):
                yield block.type, changed_name(block)


def changed_name(block: ToolChangeBlock) -> str:
    """Return the name of the tool that is added or removed."""
    name = block.tool.get("name", block.tool.get("tool_name"))
    return name if isinstance(name, str) else ""


def _inline_tools(turns: Iterable[Turn]) -> Iterator[ToolSpec]:
    """Yield tools that are defined in the turns that add them."""
    for turn in turns:
        for block in turn.content:
            if isinstance(block, ToolChangeBlock) and "input_schema" in block.tool:
                kind = TextTool if "input_grammar" in block.tool else CustomTool
                tool = decode(kind, {**block.tool, "type": "custom"})
                yield _custom_spec(tool)
