"""Refuse what no model served here can do, so that nothing requested is ignored silently.

The error texts are those that clients recover from: Claude Code replaces the image.
"""

from collections.abc import Iterable, Iterator

from pensieve.api.messages.content_blocks import (
    BinarySource,
    ContentBlock,
    ContentSource,
    DocumentBlock,
    DocumentPart,
    ImageBlock,
    MCPToolResultBlock,
    ResultPart,
    ToolResultBlock,
)
from pensieve.api.messages.request import Conversation, MessagesRequest, Turn
from pensieve.api.messages.tools import AnyChoice, ComputerUseTool, NamedChoice, ServerTool
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.turns import is_silent


def check_content_supported(call: Conversation) -> None:
    """Raise `InvalidRequestError` for content that text models cannot read and unreachable tools.

    Also for user turns without content. Paths are those of the request as sent.
    """
    if call.mcp_servers:
        raise InvalidRequestError(
            "mcp_servers: MCP servers are not reached from this server. Connect them to the client."
        )
    for index, tool in enumerate(call.tools):
        if isinstance(tool, ComputerUseTool):
            raise InvalidRequestError(
                f"tools.{index}: '{tool.type}' is not supported by this model: it needs image input"
            )
    for index, turn in enumerate(call.messages):
        _refuse_turn(turn, f"messages.{index}", call.model)


def check_generation_supported(call: MessagesRequest) -> None:
    """Raise `InvalidRequestError` for kinds of answers that this server does not generate."""
    if call.compaction is not None:
        raise InvalidRequestError("compaction: Extra inputs are not permitted")
    if call.output_schema is not None and call.messages[-1].role == "assistant":
        raise InvalidRequestError(
            "output_config.format: Prefilling assistant messages is not supported"
            " with structured output"
        )
    hosted = _server_tools(call)
    match call.tool_choice:
        case NamedChoice(name=name) if name in hosted:
            raise InvalidRequestError(
                f"tool_choice.name: '{name}' is a tool of the hosted API and cannot be run here"
            )
        case AnyChoice() if len(hosted) == len(call.tools):
            raise InvalidRequestError(
                "tool_choice: 'any' cannot be honoured: all tools are the hosted API's, and none of"
                " them can be run here"
            )
        case _:
            pass


def _server_tools(call: Conversation) -> set[str]:
    return {tool.name for tool in call.tools if isinstance(tool, ServerTool)}


def _refuse_turn(turn: Turn, path: str, model: str) -> None:
    if turn.role == "user" and all(map(is_silent, turn.content)):
        raise InvalidRequestError(
            f"{path}: all messages must have non-empty content"
            " except for the optional final assistant message"
        )
    for part, part_path in _parts(turn.content, f"{path}.content"):
        if isinstance(part, ImageBlock):
            raise _unreadable(part_path, "image", model)
        if isinstance(part, DocumentBlock) and isinstance(part.source, BinarySource):
            raise _unreadable(part_path, "document", model)


def _parts(
    blocks: Iterable[ContentBlock | ResultPart | DocumentPart], path: str
) -> Iterator[tuple[ContentBlock | ResultPart | DocumentPart, str]]:
    """Yield every block with its path, including those in tool results and documents."""
    for at, block in enumerate(blocks):
        part_path = f"{path}.{at}"
        yield block, part_path
        match block:
            case ToolResultBlock() | MCPToolResultBlock():
                yield from _parts(block.content, f"{part_path}.{block.type}.content")
            case DocumentBlock(source=ContentSource(content=content)):
                yield from _parts(content, f"{part_path}.document.source.content")
            case _:
                pass


def _unreadable(part_path: str, kind: str, model: str) -> InvalidRequestError:
    kind_name = "image" if kind == "image" else "PDF"
    return InvalidRequestError(
        f"{part_path}.{kind}: Could not process {kind}:"
        f" model '{model}' does not support {kind_name} input"
    )
