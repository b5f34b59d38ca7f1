"""Content blocks of requests: of messages, tool results and documents.

Decodes every kind that the API has, also those that only the hosted API writes, since a
conversation may have begun there. pensieve/prompt decides what to do with each. Content given as a
string becomes one text block. Identifiers and signatures of other servers are accepted.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool

from pensieve.api.base import RequestModel, one_text_block

Ttl = Literal["5m", "1h"]


class CacheControl(RequestModel):
    """A cache breakpoint: the prompt up to here should be cached."""

    type: Literal["ephemeral"]
    ttl: Ttl = "5m"


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A position in the prompt that the client marked with `cache_control`."""

    tokens: int  # that precede it
    ttl: Ttl = "5m"


class _Block(RequestModel):
    cache_control: CacheControl | None = None


class TextBlock(_Block):
    """Text. Citations from an earlier answer are ignored."""

    type: Literal["text"]
    text: str
    citations: JsonValue = None


class Base64Image(RequestModel):
    """An image's bytes."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(RequestModel):
    """A URL, which is not fetched."""

    type: Literal["url"]
    url: str


class FileSource(RequestModel):
    """An uploaded file."""

    type: Literal["file"]
    file_id: str


class ImageBlock(_Block):
    """An image. Models without vision refuse it in a wording on which clients drop it and retry."""

    type: Literal["image"]
    source: Annotated[Base64Image | UrlSource | FileSource, Field(discriminator="type")]


class TranslatedImage(ImageBlock):
    """An image of a request of another API, which is in no request of this one."""

    path: str  # of the field in which the client wrote it
    # Whether a note takes the place of an image that cannot be read: in a tool's result, where an
    # error would come back with every later request.
    is_optional: bool = False
    is_small: bool = False  # a coarse view is enough


class ReadImage(ImageBlock):
    """An image that the prompt has as `rows` times `columns` tokens, which is in no request."""

    picture_id: str
    rows: int
    columns: int
    # Returns 8-bit RGB of the size that the model takes.
    pixels: Callable[[], Awaitable[bytes]]


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


class PdfSource(RequestModel):
    """The bytes of a PDF."""

    type: Literal["base64"]
    media_type: Literal["application/pdf"]
    data: str


class TranslatedPdf(PdfSource):
    """A PDF of a request of another API, which is in no request of this one."""

    path: str  # of the field in which the client wrote it
    # Whether a note takes the place of a PDF that cannot be read: in a tool's result, where an
    # error would come back with every later request.
    is_optional: bool = False


class DocumentBlock(_Block):
    """A document, of which models read the text."""

    type: Literal["document"]
    # prompt/conversation/documents.py replaces files and PDFs by their text.
    source: Annotated[
        TextSource | ContentSource | FileSource | PdfSource | UrlSource,
        Field(discriminator="type"),
    ]
    title: str | None = None
    context: str | None = None


class SearchResultBlock(_Block):
    """A search result that the client provides."""

    type: Literal["search_result"]
    source: str
    title: str
    content: tuple[TextBlock, ...]


class ThinkingBlock(_Block):
    """Thinking of an earlier answer, also of another server: the signature is not checked."""

    type: Literal["thinking"]
    thinking: str = ""
    signature: str = ""


class ToolUseBlock(_Block):
    """A call of one of the client's tools in an earlier answer."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, JsonValue]


class ToolReferenceBlock(_Block):
    """A tool that the client's own tool search found."""

    type: Literal["tool_reference"]
    tool_name: str


class BrowserStateBlock(_Block):
    """The tabs of a browser after a tool call."""

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
    """The result of a tool call."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(min_length=1)]
    content: ResultContent = ()
    is_error: StrictBool = False


class ServerToolUseBlock(_Block):
    """A tool call that the hosted API ran itself."""

    type: Literal["server_tool_use"]
    name: str
    input: JsonValue = None


class ServerToolResultBlock(_Block):
    """The result of a tool of the hosted API."""

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
    """A tool call that the hosted API made over MCP."""

    type: Literal["mcp_tool_use"]
    name: str
    server_name: str = ""
    input: dict[str, JsonValue] = {}  # noqa: RUF012 -- pydantic copies it


class MCPToolResultBlock(_Block):
    """The result of a tool call over MCP."""

    type: Literal["mcp_tool_result"]
    tool_use_id: str = ""
    content: ResultContent = ()
    is_error: StrictBool = False


class ContainerUploadBlock(_Block):
    """A file for the hosted API's container."""

    type: Literal["container_upload"]
    file_id: str


class CompactionBlock(_Block):
    """A summary of the conversation so far. Without content it is ignored."""

    type: Literal["compaction"]
    content: str | None = None


class ToolChangeBlock(_Block):
    """Adds or removes a tool in the middle of a conversation."""

    type: Literal["tool_addition", "tool_removal"]
    tool: dict[str, JsonValue]


class HostedBlock(_Block):
    """A block that only the hosted API understands."""

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
