"""Format content blocks as text: documents, results, added and removed tools.

Knows no control tokens. template/chat_messages.py assembles turns from these texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never, cast

from pensieve.api.messages.content_blocks import (
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
    PdfSource,
    ReadImage,
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
    UrlSource,
)
from pensieve.dialects.dialect import JSON_CALL, ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls, format_json
from pensieve.dialects.grammar.tagged_values import TaggedValues
from pensieve.prompt.conversation.pictures import joined, mark_of
from pensieve.prompt.conversation.tools import changed_name

# Readable fields in results of the hosted API's own tools, in this order.
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
    """Tools and tool uses of the conversation, to which blocks refer."""

    uses: Mapping[str, ToolUseBlock]  # by id
    tools: Mapping[str, ToolSpec]  # by name
    parallel: frozenset[str] = frozenset()  # ids of uses in turns with several
    # By tool name: how the values of its parameters are written between tags.
    slots: Mapping[str, TaggedValues] = field(default_factory=dict[str, TaggedValues])

    def tool_name(self, use_id: str) -> str:
        """Return the name of the tool that was used; empty for an unknown id."""
        return self.uses[use_id].name if use_id in self.uses else ""


def block_text(block: ContentBlock, tool_names: ToolNames) -> str:
    """Return a block's text. The assistant's own tool uses are written by the dialect instead."""
    match block:
        case TextBlock() | ImageBlock() | DocumentBlock() | SearchResultBlock():
            return part_text(block, tool_names)
        case ToolUseBlock() | MCPToolUseBlock():
            return format_calls(JSON_CALL, [ToolCall(block.name, block.input)])
        case ToolResultBlock() | MCPToolResultBlock():
            return _result(block, tool_names)
        case ServerToolUseBlock() | ServerToolResultBlock() | ContainerUploadBlock():
            return _hosted(block)
        case ToolChangeBlock():
            return _change(block, tool_names)
        case CompactionBlock() | ThinkingBlock() | HostedBlock():
            return (block.content or "") if isinstance(block, CompactionBlock) else ""
        case _:
            assert_never(block)


def result_text(block: ToolResultBlock | MCPToolResultBlock, tool_names: ToolNames) -> str:
    """Return a tool result without markup."""
    text = joined(part_text(part, tool_names) for part in block.content)
    return f"Error: {text}" if block.is_error else text


def _result(block: ToolResultBlock | MCPToolResultBlock, tool_names: ToolNames) -> str:
    name = tool_names.tool_name(block.tool_use_id)
    return _tagged("tool_result", {"name": name} if name else {}, result_text(block, tool_names))


def _change(block: ToolChangeBlock, tool_names: ToolNames) -> str:
    name = changed_name(block)
    if block.type == "tool_removal":
        return f"The tool {name} cannot be used any more."
    if name not in tool_names.tools:
        return ""
    return f"A tool can be used from here on:\n{_definition(tool_names.tools[name])}"


def _definition(tool: ToolSpec) -> str:
    """Use the markup in which Claude Code describes a found tool to its model."""
    definition = {"description": tool.description, "name": tool.name, "parameters": tool.schema}
    return f"<functions>\n<function>{format_json(definition)}</function>\n</functions>"


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


def part_text(part: ResultPart | DocumentPart, tool_names: ToolNames) -> str:
    match part:
        case TextBlock():
            return part.text
        case DocumentBlock():
            return _document(part, tool_names)
        case SearchResultBlock():
            return _tagged(
                "search_result",
                {"source": part.source, "title": part.title},
                "\n".join(text.text for text in part.content),
            )
        case ToolReferenceBlock():
            return _reference(part, tool_names)
        case BrowserStateBlock():
            return format_json({"tabs": part.tabs, "state_changes": part.state_changes})
        case ImageBlock():
            assert isinstance(part, ReadImage), "others are refused before they are written"
            return mark_of(part.picture_id)
        case _:
            assert_never(part)


def _reference(part: ToolReferenceBlock, tool_names: ToolNames) -> str:
    if part.tool_name in tool_names.tools:
        return _definition(tool_names.tools[part.tool_name])
    return _tagged("tool_reference", {}, part.tool_name)


def _document(block: DocumentBlock, tool_names: ToolNames) -> str:
    match block.source:
        case TextSource(data=text):
            pass
        case ContentSource(content=parts):
            text = joined(part_text(one, tool_names) for one in parts)
        case FileSource() | PdfSource() | UrlSource():
            raise AssertionError("unreadable documents are refused before they are written")
        case _:
            assert_never(block.source)
    body = f"{block.context}\n\n{text}" if block.context else text
    return _tagged("document", {"title": block.title} if block.title else {}, body)


def _tagged(name: str, attributes: Mapping[str, str], body: str) -> str:
    opening = "".join(f" {key}={format_json(value)}" for key, value in attributes.items())
    return f"<{name}{opening}>\n{body}\n</{name}>"


def _short(arguments: object) -> str:
    """Return a call's input as JSON; of a single field, the value alone."""
    if (
        isinstance(arguments, dict)
        and len(values := list(cast("dict[str, object]", arguments).values())) == 1
    ):
        return format_json(values[0])
    return format_json(cast("object", arguments))


def _readable(value: object) -> str:
    """Return the readable text of a result of any kind, without binary or encrypted data."""
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
