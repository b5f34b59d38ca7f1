"""Content blocks as clients send them: what a message, a tool result and a document may hold.

Every kind that the API knows is decoded, also those that only the hosted API writes: a conversation may have begun
there. What becomes of each is prompt's business. A string of content is one text block, so nobody past this file asks
which it was. Identifiers and signatures of other servers are taken as they are.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool

from pensieve.api.base import RequestModel

Ttl = Literal["5m", "1h"]


class CacheControl(RequestModel):
    """A cache breakpoint: everything up to here is worth keeping."""

    type: Literal["ephemeral"]
    ttl: Ttl = "5m"


class _Block(RequestModel):
    cache_control: CacheControl | None = None


def one_text_block(content: object) -> object:
    """A string as the one block that it stands for."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class TextBlock(_Block):
    """Text. Citations of an earlier answer are read past."""

    type: Literal["text"]
    text: str
    citations: JsonValue = None


class ImageBlock(_Block):
    """A picture: decoded so that it can be refused in words that clients heal on."""

    type: Literal["image"]


DocumentPart = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class TextSource(RequestModel):
    """A document's plain text."""

    type: Literal["text"]
    data: str


class ContentSource(RequestModel):
    """A document made of blocks."""

    type: Literal["content"]
    content: Annotated[
        tuple[DocumentPart, ...],
        BeforeValidator(one_text_block, json_schema_input_type=str | tuple[DocumentPart, ...]),
    ]


class FileSource(RequestModel):
    """A file that was uploaded here; its text takes this one's place (prompt/conversation/file_text.py)."""

    type: Literal["file"]
    file_id: str


class BinarySource(RequestModel):
    """A PDF's bytes, an address: not text."""

    type: Literal["base64", "url"]


class DocumentBlock(_Block):
    """A document, by its text or by what only a model with eyes can read."""

    type: Literal["document"]
    source: Annotated[
        TextSource | ContentSource | FileSource | BinarySource, Field(discriminator="type")
    ]
    title: str | None = None
    context: str | None = None


class SearchResultBlock(_Block):
    """A passage that the client found."""

    type: Literal["search_result"]
    source: str
    title: str
    content: tuple[TextBlock, ...]


class ThinkingBlock(_Block):
    """What some model thought earlier, perhaps another server's: its signature is never checked."""

    type: Literal["thinking"]
    thinking: str = ""
    signature: str = ""


class ToolUseBlock(_Block):
    """A call of one of the client's tools, in the words of an earlier answer."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, JsonValue]


class ToolReferenceBlock(_Block):
    """A tool that the client's own tool search found."""

    type: Literal["tool_reference"]
    tool_name: str


class BrowserStateBlock(_Block):
    """The tabs of a browser after a call."""

    type: Literal["browser_state"]
    tabs: JsonValue = None
    state_changes: JsonValue = None


ResultPart = Annotated[
    TextBlock
    | ImageBlock
    | SearchResultBlock
    | DocumentBlock
    | ToolReferenceBlock
    | BrowserStateBlock,
    Field(discriminator="type"),
]
ResultContent = Annotated[
    tuple[ResultPart, ...],
    BeforeValidator(one_text_block, json_schema_input_type=str | tuple[ResultPart, ...]),
]


class ToolResultBlock(_Block):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(min_length=1)]
    content: ResultContent = ()
    is_error: StrictBool = False


class ServerToolUseBlock(_Block):
    """A call that the hosted API made itself."""

    type: Literal["server_tool_use"]
    name: str
    input: JsonValue = None


class ServerToolResultBlock(_Block):
    """What the hosted API's own tool answered."""

    type: Literal[
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
    ]
    content: JsonValue = None


class MCPToolUseBlock(_Block):
    """A call that the hosted API made of a tool behind MCP."""

    type: Literal["mcp_tool_use"]
    name: str
    server_name: str = ""
    input: dict[str, JsonValue] = {}  # noqa: RUF012 -- pydantic copies it


class MCPToolResultBlock(_Block):
    """What that tool answered."""

    type: Literal["mcp_tool_result"]
    tool_use_id: str = ""
    content: ResultContent = ()
    is_error: StrictBool = False


class ContainerUploadBlock(_Block):
    """A file for the hosted API's container."""

    type: Literal["container_upload"]
    file_id: str


class CompactionBlock(_Block):
    """What was said before, in short. Without content it stands for nothing."""

    type: Literal["compaction"]
    content: str | None = None


class ToolChangeBlock(_Block):
    """A tool comes or goes in the middle of a conversation."""

    type: Literal["tool_addition", "tool_removal"]
    tool: dict[str, JsonValue]


class HostedBlock(_Block):
    """What means something to the hosted API alone."""

    type: Literal["redacted_thinking", "advisor_tool_result", "mcp_tool_listing", "fallback"]


ContentBlock = Annotated[
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ServerToolUseBlock
    | ServerToolResultBlock
    | MCPToolUseBlock
    | MCPToolResultBlock
    | ContainerUploadBlock
    | CompactionBlock
    | ToolChangeBlock
    | HostedBlock,
    Field(discriminator="type"),
]
Content = Annotated[
    tuple[ContentBlock, ...],
    BeforeValidator(one_text_block, json_schema_input_type=str | tuple[ContentBlock, ...]),
]
SystemContent = Annotated[
    tuple[TextBlock, ...],
    BeforeValidator(one_text_block, json_schema_input_type=str | tuple[TextBlock, ...]),
]
