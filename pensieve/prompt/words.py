"""The seam between blocks and a chat template: what a turn of blocks says, as the one message the template takes.

For models whose template knows text only. Blocks of one message stand on lines of their own, except the texts of the
assistant, which were written in one go; messages of one role are parted by an empty line. What a client sent is
neutralized together with all that is written around it, so no field can hold a control token.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import assert_never, cast

from pensieve.api.blocks import (
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
    OpaqueSource,
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
from pensieve.prompt.turns import ChatTurn, is_silent

Message = Mapping[str, object]

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


def template_messages(turns: Sequence[ChatTurn], neutralize: Callable[[str], str]) -> list[Message]:
    """The messages that a chat template is given for `turns`."""
    names = {block.id: block.name for block in _tool_uses(turns)}
    return [{"role": turn.role, "content": neutralize(text_of(turn, names))} for turn in turns]


def _tool_uses(turns: Sequence[ChatTurn]) -> Iterable[ToolUseBlock]:
    return (block for turn in turns for block in turn.blocks if isinstance(block, ToolUseBlock))


def text_of(turn: ChatTurn, tool_names: Mapping[str, str]) -> str:
    """What the turn says. tool_names: the tool of each tool use by its id."""
    texts = (_message_text(turn, message, tool_names) for message in turn.messages)
    return "\n\n".join(text for text in texts if text)


def _message_text(
    turn: ChatTurn, message: Iterable[ContentBlock], tool_names: Mapping[str, str]
) -> str:
    written = ""
    after_text = False
    for block in message:
        if is_silent(block):
            continue
        is_text = isinstance(block, TextBlock)
        is_one_go = turn.role == "assistant" and is_text and after_text
        separator = "" if is_one_go or not written else "\n"
        written += separator + _block_text(block, tool_names)
        after_text = is_text
    return written


def _block_text(block: ContentBlock, tool_names: Mapping[str, str]) -> str:
    match block:
        case TextBlock() | ImageBlock() | DocumentBlock() | SearchResultBlock():
            return _part_text(block)
        case ToolUseBlock() | MCPToolUseBlock():
            return _call(block.name, block.input)
        case ToolResultBlock() | MCPToolResultBlock():
            return _result(block, tool_names.get(block.tool_use_id))
        case ServerToolUseBlock() | ServerToolResultBlock() | ContainerUploadBlock():
            return _hosted(block)
        case CompactionBlock():
            return block.content or ""
        case ThinkingBlock() | HostedBlock() | ToolChangeBlock():
            return ""
        case _:
            assert_never(block)


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


def _part_text(part: ResultPart | DocumentPart) -> str:
    match part:
        case TextBlock():
            return part.text
        case DocumentBlock():
            return _document(part)
        case SearchResultBlock():
            return _tagged(
                "search_result",
                {"source": part.source, "title": part.title},
                "\n".join(text.text for text in part.content),
            )
        case ToolReferenceBlock():
            return _tagged("tool_reference", {}, part.tool_name)
        case BrowserStateBlock():
            return _json({"tabs": part.tabs, "state_changes": part.state_changes})
        case ImageBlock():
            raise AssertionError("images are refused before they are written")
        case _:
            assert_never(part)


def _document(block: DocumentBlock) -> str:
    match block.source:
        case TextSource(data=text):
            pass
        case ContentSource(content=parts):
            text = "\n".join(map(_part_text, parts))
        case FileSource() | OpaqueSource():
            raise AssertionError("unreadable documents are refused before they are written")
        case _:
            assert_never(block.source)
    body = f"{block.context}\n\n{text}" if block.context else text
    return _tagged("document", {"title": block.title} if block.title else {}, body)


def _call(name: str, arguments: Mapping[str, object]) -> str:
    return f"<tool_call>\n{_json({'name': name, 'arguments': arguments})}\n</tool_call>"


def _result(block: ToolResultBlock | MCPToolResultBlock, tool_name: str | None) -> str:
    text = "\n".join(map(_part_text, block.content))
    said = f"Error: {text}" if block.is_error else text
    return _tagged("tool_result", {"name": tool_name} if tool_name else {}, said)


def _tagged(name: str, attributes: Mapping[str, str], body: str) -> str:
    opening = "".join(f" {key}={_json(value)}" for key, value in attributes.items())
    return f"<{name}{opening}>\n{body}\n</{name}>"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(given: object) -> str:
    """A call's input; a single text alone."""
    if (
        isinstance(given, dict)
        and len(values := list(cast("dict[str, object]", given).values())) == 1
    ):
        return _json(values[0])
    return _json(cast("object", given))


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
