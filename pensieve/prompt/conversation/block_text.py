"""What a block says, as text: the words around documents, results, tools that come and go. Control tokens have no part in it.

What becomes of a turn of blocks is prompt/template/chat_messages.py's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never, cast

from pensieve.api.messages.content_blocks import (
    BinarySource,
    BrowserStateBlock,
    CompactionBlock,
    ContainerUploadBlock,
    ContentBlock,
    ContentSource,
    DocumentBlock,
    DocumentPart,
    FileSource,
    HostedBlock,
    ImageBlock,
    MCPToolResultBlock,
    MCPToolUseBlock,
    ResultPart,
    SearchResultBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolChangeBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.dialects.dialect import JSON_CALL, ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls, format_json
from pensieve.dialects.grammar.tagged_values import TaggedValues
from pensieve.prompt.conversation.tools import changed_name

# What is worth reading in a result of the hosted API's own tools, in this order.
_READABLE = (
    "title",
    "url",
    "tool_name",
    "error_code",
    "text",
    "stdout",
    "stderr",
    "return_code",
    "lines",
    "data",
    "source",
    "content",
    "tool_references",
)


@dataclass(frozen=True, slots=True)
class ToolNames:
    """What a block's words need of the rest. uses: each tool use by its id. tools: every tool by its name.

    parallel: the ids of uses that are not the only one of their turn. slots: of the tools' parameters, by the tools' names.
    """

    uses: Mapping[str, ToolUseBlock]
    tools: Mapping[str, ToolSpec]
    parallel: frozenset[str] = frozenset()
    slots: Mapping[str, TaggedValues] = field(default_factory=dict[str, TaggedValues])

    def tool_name(self, use_id: str) -> str:
        """The tool that was used; nothing where the use is not known."""
        return self.uses[use_id].name if use_id in self.uses else ""


def block_text(block: ContentBlock, known: ToolNames) -> str:
    """All kinds but the assistant's own tool uses, which a dialect writes."""
    match block:
        case TextBlock() | ImageBlock() | DocumentBlock() | SearchResultBlock():
            return part_text(block, known)
        case ToolUseBlock() | MCPToolUseBlock():
            return format_calls(JSON_CALL, [ToolCall(block.name, block.input)])
        case ToolResultBlock() | MCPToolResultBlock():
            return _result(block, known)
        case ServerToolUseBlock() | ServerToolResultBlock() | ContainerUploadBlock():
            return _hosted(block)
        case ToolChangeBlock():
            return _change(block, known)
        case CompactionBlock() | ThinkingBlock() | HostedBlock():
            return (block.content or "") if isinstance(block, CompactionBlock) else ""
        case _:
            assert_never(block)


def result_text(block: ToolResultBlock | MCPToolResultBlock, known: ToolNames) -> str:
    """What a tool answered, without anything around it."""
    text = "\n".join(part_text(part, known) for part in block.content)
    return f"Error: {text}" if block.is_error else text


def _result(block: ToolResultBlock | MCPToolResultBlock, known: ToolNames) -> str:
    name = known.tool_name(block.tool_use_id)
    return _tagged("tool_result", {"name": name} if name else {}, result_text(block, known))


def _change(block: ToolChangeBlock, known: ToolNames) -> str:
    name = changed_name(block)
    if block.type == "tool_removal":
        return f"The tool {name} cannot be used any more."
    if name not in known.tools:
        return ""
    return f"A tool can be used from here on:\n{_definition(known.tools[name])}"


def _definition(tool: ToolSpec) -> str:
    """As Claude Code tells its model that a found tool looks like."""
    shown = {"description": tool.description, "name": tool.name, "parameters": tool.schema}
    return f"<functions>\n<function>{format_json(shown)}</function>\n</functions>"


def _hosted(block: ServerToolUseBlock | ServerToolResultBlock | ContainerUploadBlock) -> str:
    match block:
        case ServerToolUseBlock():
            return f"[{block.name} {_short(block.input)}]"
        case ServerToolResultBlock():
            return _readable(block.content)
        case ContainerUploadBlock():
            return f"[file {block.file_id}, not available here]"
        case _:
            assert_never(block)


def part_text(part: ResultPart | DocumentPart, known: ToolNames) -> str:
    """A part of a result, a document, or a turn."""
    match part:
        case TextBlock():
            return part.text
        case DocumentBlock():
            return _document(part, known)
        case SearchResultBlock():
            return _tagged(
                "search_result",
                {"source": part.source, "title": part.title},
                "\n".join(text.text for text in part.content),
            )
        case ToolReferenceBlock():
            if part.tool_name in known.tools:
                return _definition(known.tools[part.tool_name])
            return _tagged("tool_reference", {}, part.tool_name)
        case BrowserStateBlock():
            return format_json({"tabs": part.tabs, "state_changes": part.state_changes})
        case ImageBlock():
            raise AssertionError("images are refused before they are written")
        case _:
            assert_never(part)


def _document(block: DocumentBlock, known: ToolNames) -> str:
    match block.source:
        case TextSource(data=text):
            pass
        case ContentSource(content=parts):
            text = "\n".join(part_text(one, known) for one in parts)
        case FileSource() | BinarySource():
            raise AssertionError("unreadable documents are refused before they are written")
        case _:
            assert_never(block.source)
    body = f"{block.context}\n\n{text}" if block.context else text
    return _tagged("document", {"title": block.title} if block.title else {}, body)


def _tagged(name: str, attributes: Mapping[str, str], body: str) -> str:
    opening = "".join(f" {key}={format_json(value)}" for key, value in attributes.items())
    return f"<{name}{opening}>\n{body}\n</{name}>"


def _short(given: object) -> str:
    """A call's input; a single text alone."""
    if (
        isinstance(given, dict)
        and len(values := list(cast("dict[str, object]", given).values())) == 1
    ):
        return format_json(values[0])
    return format_json(cast("object", given))


def _readable(value: object) -> str:
    """What there is to read in a result of any kind: no bytes, nothing encrypted."""
    match value:
        case None:
            return ""
        case str() | int() | float():
            return str(value)
        case list():
            texts = map(_readable, cast("list[object]", value))
        case dict():
            fields = cast("dict[str, object]", value)
            if fields.get("type") == "base64":
                return ""
            texts = (_readable(fields.get(name)) for name in _READABLE)
        case _:
            return ""
    return "\n".join(text for text in texts if text)
