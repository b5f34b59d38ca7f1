"""The body of `POST /v1/chat/completions`. Unknown fields are ignored.

Values are flat, so that errors have the paths that the client wrote, and open, so that a kind of
tool or content part that is not known here fails no request. conversation.py decides what each
means.
"""

from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from pensieve.api.base import RequestModel, one_text_block
from pensieve.api.messages.request import MAX_INT, MAX_MESSAGES
from pensieve.api.messages.tools import InputGrammar
from pensieve.openai.content_parts import ContentPart
from pensieve.openai.generation_fields import (
    MAX_TOP_LOGPROBS,
    GenerationFields,
    TokenLimit,
    text_or_list,
)

MAX_TOOLS = 1000  # of all kinds; 128 can be called

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


def _parts(content: object) -> object:
    return one_text_block(text_or_list(content))


# A string is one text part.
Content = Annotated[
    tuple[ContentPart, ...],
    BeforeValidator(_parts, json_schema_input_type=str | tuple[ContentPart, ...]),
]


class FunctionCall(RequestModel):
    """A call of a function in an earlier answer."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    arguments: JsonValue = ""  # JSON as text; some clients send the object itself


class CustomCall(RequestModel):
    """A call of a custom tool in an earlier answer."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: str = ""


class ToolCall(RequestModel):
    """A tool call in an earlier answer."""

    id: str = ""
    type: str = "function"
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class ChatMessage(RequestModel):
    """One message of the conversation."""

    role: Role
    content: Content = ()
    tool_calls: tuple[ToolCall, ...] = ()
    function_call: FunctionCall | None = None  # the deprecated form of a single call
    tool_call_id: str = ""
    # The answer's thought, by two names.
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None

    @property
    def thought(self) -> str:
        thoughts = (self.reasoning_content, self.reasoning)
        return next((text for text in thoughts if isinstance(text, str) and text), "")


class FunctionTool(RequestModel):
    """A function that the client runs."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    description: str = ""
    parameters: dict[str, JsonValue] | None = None
    strict: StrictBool = False


class CustomFormat(RequestModel):
    """The form of a custom tool's input: any text, or that of a grammar."""

    type: str = "text"
    grammar: InputGrammar | None = None


class ChatCustomTool(RequestModel):
    """A tool of the client whose input is text."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    description: str = ""
    format: CustomFormat = CustomFormat()


class ChatTool(RequestModel):
    """A tool. Kinds that only the hosted API runs have neither value."""

    type: str = "function"
    function: FunctionTool | None = None
    custom: ChatCustomTool | None = None


def _nested(tool: object) -> object:
    """Return a function's fields under `function`, where clients of other APIs send them flat."""
    if not isinstance(tool, dict):
        return tool
    fields = cast("dict[str, object]", tool)
    is_function = fields.get("type", "function") in ("function", None)
    if not is_function or "function" in fields or "name" not in fields:
        return fields
    parameters = fields.get("parameters", fields.get("input_schema"))
    return {"type": "function", "function": {**fields, "parameters": parameters}}


class ToolName(RequestModel):
    """A tool's name."""

    name: str


class ToolReference(RequestModel):
    """A tool by its name: nested as in this API, or flat as in others."""

    type: str = "function"
    name: str = ""
    function: ToolName | None = None
    custom: ToolName | None = None

    @property
    def tool_name(self) -> str:
        nested = self.function or self.custom
        return self.name if nested is None else nested.name


class AllowedTools(RequestModel):
    """The tools that may be called, or one of which must be."""

    mode: Literal["auto", "required"]
    tools: tuple[ToolReference, ...]


class ChatToolChoice(ToolReference):
    """Which tools may or must be called: by `type` alone, by name, or by a list of names."""

    allowed_tools: AllowedTools | None = None


def _choice_object(choice: object) -> object:
    """Return the choice as an object, with a list of tools where this API has it."""
    if not isinstance(choice, dict):
        return {"type": choice} if isinstance(choice, str) else choice
    fields = cast("dict[str, object]", choice)
    is_flat = fields.get("type") == "allowed_tools" and "allowed_tools" not in fields
    return {**fields, "allowed_tools": fields} if is_flat and "tools" in fields else fields


class JsonSchemaFormat(RequestModel):
    """A JSON Schema for the answer."""

    name: str = ""
    description: str = ""
    value: Annotated[dict[str, JsonValue] | None, Field(alias="schema")] = None
    strict: StrictBool = False


class ResponseFormat(RequestModel):
    """The form of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    # llama.cpp's, with `json_object`.
    value: Annotated[dict[str, JsonValue] | None, Field(alias="schema")] = None


class Reasoning(RequestModel):
    """OpenRouter's options of thinking."""

    enabled: StrictBool | None = None
    effort: JsonValue = None
    max_tokens: Annotated[StrictInt, Field(ge=0, le=MAX_INT)] | None = None
    exclude: StrictBool = False  # the answer leaves the thought out


class ChatRequest(GenerationFields):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    # Both count the thought. The first one takes precedence.
    max_completion_tokens: TokenLimit = None
    max_tokens: TokenLimit = None
    logprobs: StrictBool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    # Refused unless they ask for nothing.
    modalities: tuple[str, ...] = ()
    audio: JsonValue = None
    functions: JsonValue = None
    tools: Annotated[
        tuple[Annotated[ChatTool, BeforeValidator(_nested)], ...], Field(max_length=MAX_TOOLS)
    ] = ()
    # A string is an object with that type alone.
    tool_choice: Annotated[
        ChatToolChoice, BeforeValidator(_choice_object, json_schema_input_type=str | ChatToolChoice)
    ] = ChatToolChoice(type="auto")
    parallel_tool_calls: StrictBool = True
    response_format: ResponseFormat = ResponseFormat(type="text")
    # Thinking: OpenAI's field, OpenRouter's, and those of other servers and hosts.
    reasoning_effort: JsonValue = None
    reasoning: Reasoning = Reasoning()
    enable_thinking: StrictBool | None = None
    thinking: JsonValue = None
    chat_template_kwargs: dict[str, JsonValue] = {}  # noqa: RUF012 -- pydantic copies it
    prompt_cache_key: JsonValue = None
    service_tier: JsonValue = None
