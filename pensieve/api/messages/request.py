"""The bodies of `POST /v1/messages` and `/v1/messages/count_tokens`, and the version of the API.

Unknown fields are ignored. Fields that pensieve does not support, but must not ignore, are listed,
so that pensieve/prompt/conversation/validation.py can refuse them by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pensieve.api import json_body
from pensieve.api.base import RequestModel
from pensieve.api.errors import first_error
from pensieve.api.messages.content_blocks import (
    CacheControl,
    Content,
    ContentBlock,
    ContentSource,
    DocumentBlock,
    DocumentPart,
    FileSource,
    ImageBlock,
    MCPToolResultBlock,
    PdfSource,
    ResultPart,
    SystemContent,
    ToolChangeBlock,
    ToolResultBlock,
)
from pensieve.api.messages.options import ContextManagement, OutputConfig, Thinking, Thread
from pensieve.api.messages.tools import Tool, ToolChoice
from pensieve.errors import InvalidRequestError, RequestTooLargeError

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_MESSAGES = 100_000
MAX_STOP_SEQUENCES = 64
MAX_STOP_CHARS = 1024
MAX_INT = 2**63 - 1

Role = Literal["user", "assistant", "system"]
Version = Literal["2023-06-01", "2026-10-21"]
_OLD_VERSIONS = {"2023-01-01", "2023-06-01"}


class Turn(RequestModel):
    """One entry of `messages`."""

    role: Role
    content: Content
    # When the prompt omits a system turn: after the next user message, or never.
    clear_at: Literal["next_user_message", "never"] = "never"

    @model_validator(mode="before")
    @classmethod
    def _allow_output_config_alone(cls, turn: object) -> object:
        # A system turn may contain an `output_config` and no content; it is ignored.
        if not isinstance(turn, dict):
            return turn
        fields = cast("dict[str, object]", turn)
        if fields.get("role") == "system" and fields.get("output_config"):
            return {"content": (), **fields}
        return fields


def _not_empty(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    if not turns:
        raise PydanticCustomError("no_messages", "at least one message is required")
    return turns


class Conversation(RequestModel):
    """The fields from which the prompt is rendered."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[
        tuple[Turn, ...],
        Field(max_length=MAX_MESSAGES, json_schema_extra={"minItems": 1}),
        AfterValidator(_not_empty),
    ]
    system: SystemContent = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    output_format: JsonValue = None
    cache_control: CacheControl | None = None
    context_management: ContextManagement | None = None
    mcp_servers: tuple[JsonValue, ...] = ()

    @property
    def output_schema(self) -> JsonValue:
        """Return the requested format of the answer, from the current or the former field."""
        return self.output_config.format or self.output_format

    @property
    def blocks(self) -> Iterator[ContentBlock]:
        return (block for turn in self.messages for block in turn.content)

    @property
    def declares_tools(self) -> bool:
        """Whether there are tools, from the start or added by a turn."""
        return bool(self.tools) or any(isinstance(block, ToolChangeBlock) for block in self.blocks)

    @property
    def has_unread_documents(self) -> bool:
        """Whether a document is an uploaded file or a PDF, whose text is elsewhere."""
        return any(map(_is_unread, self.blocks))

    @property
    def has_images(self) -> bool:
        """Whether there is an image, also in results and documents."""
        return any(map(_has_image, self.blocks))


def _has_image(block: ContentBlock | ResultPart | DocumentPart) -> bool:
    match block:
        case ImageBlock():
            return True
        case ToolResultBlock() | MCPToolResultBlock():
            return any(map(_has_image, block.content))
        case DocumentBlock(source=ContentSource(content=content)):
            return any(map(_has_image, content))
        case _:
            return False


def _is_unread(block: ContentBlock | ResultPart) -> bool:
    match block:
        case DocumentBlock(source=FileSource() | PdfSource()):
            return True
        case ToolResultBlock() | MCPToolResultBlock():
            return any(map(_is_unread, block.content))
        case _:
            return False


class CountTokensRequest(Conversation):
    """The body of `POST /v1/messages/count_tokens`. `thread` is refused."""

    thread: JsonValue = None


def _stop_sequence(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError(
            "blank_stop_sequence", "each stop sequence must contain non-whitespace"
        )
    return text


StopSequence = Annotated[str, Field(max_length=MAX_STOP_CHARS), AfterValidator(_stop_sequence)]


class MessagesRequest(Conversation):
    """The body of `POST /v1/messages`. With `max_tokens` 0, only the prompt is processed."""

    max_tokens: Annotated[StrictInt, Field(ge=0, le=MAX_INT)]
    stream: StrictBool = False
    stop_sequences: Annotated[tuple[StopSequence, ...], Field(max_length=MAX_STOP_SEQUENCES)] = ()
    # None: from the settings or the model. Temperatures up to 2 are common on other servers.
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    top_k: Annotated[StrictInt, Field(ge=0, le=MAX_INT)] | None = None
    thread: Thread | None = None
    compaction: JsonValue = None


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """The version and betas of the API that a client requests."""

    version: Version = "2023-06-01"
    betas: frozenset[str] = frozenset()


def api_version_of(version: str | None, betas: str) -> ApiVersion:
    """Parse the headers `anthropic-version`, absent as None, and `anthropic-beta`.

    No version means 2023-06-01, an unknown one the newest.
    """
    return ApiVersion(
        version="2023-06-01"
        if version is None or version.strip() in _OLD_VERSIONS
        else "2026-10-21",
        betas=frozenset(beta.strip() for beta in betas.split(",") if beta.strip()),
    )


RequestT = TypeVar("RequestT", bound=RequestModel)


def parse(kind: type[RequestT], body: bytes) -> RequestT:
    """Raises `InvalidRequestError` in Anthropic's wording and `RequestTooLargeError`."""
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLargeError("Request exceeds the maximum size")
    return decode(kind, json_body.decode(body))


def decode(kind: type[RequestT], fields: object) -> RequestT:
    """Validate a JSON value. Raises `InvalidRequestError`."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequestError(first_error(error)) from None
