"""What no model served here can do, refused by name, so that nothing a client asks for is left out in silence.

The words are those that clients have a way round for: Claude Code replaces the picture.
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
    """Raises `InvalidRequestError` for content that no text model reads, tools and servers out of reach, a silent user.

    Paths are those of the request as it was sent.
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
    """Raises `InvalidRequestError` for an answer of a kind that is not made here."""
    if call.compaction is not None:
        raise InvalidRequestError("compaction: Extra inputs are not permitted")
    if call.output_schema is not None and call.messages[-1].role == "assistant":
        raise InvalidRequestError(
            "output_config.format: Prefilling assistant messages is not supported with structured output"
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
    for part, where in _parts(turn.content, f"{path}.content"):
        if isinstance(part, ImageBlock):
            raise _unreadable(where, "image", model)
        if isinstance(part, DocumentBlock) and isinstance(part.source, BinarySource):
            raise _unreadable(where, "document", model)


def _parts(
    blocks: Iterable[ContentBlock | ResultPart | DocumentPart], path: str
) -> Iterator[tuple[ContentBlock | ResultPart | DocumentPart, str]]:
    """Every block with its path, those inside tool results and documents too."""
    for at, block in enumerate(blocks):
        where = f"{path}.{at}"
        yield block, where
        match block:
            case ToolResultBlock() | MCPToolResultBlock():
                yield from _parts(block.content, f"{where}.{block.type}.content")
            case DocumentBlock(source=ContentSource(content=content)):
                yield from _parts(content, f"{where}.document.source.content")
            case _:
                pass


def _unreadable(where: str, kind: str, model: str) -> InvalidRequestError:
    word = "image" if kind == "image" else "PDF"
    return InvalidRequestError(
        f"{where}.{kind}: Could not process {kind}: model '{model}' does not support {word} input"
    )
