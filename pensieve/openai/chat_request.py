"""The body of `POST /v1/chat/completions`. Unknown fields are ignored.

Values are flat, so that errors have the paths that the client wrote, and open, so that a kind of
tool or content part that is not known here fails no request. conversation.py decides what each
means.
"""

from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StrictBool, StrictInt
from pydantic_core import PydanticCustomError

from pensieve.api.base import RequestModel, one_text_block
from pensieve.api.messages.request import MAX_INT, MAX_MESSAGES, MAX_STOP_CHARS, MAX_STOP_SEQUENCES

MAX_TOOLS = 10_000

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


class ContentPart(RequestModel):
    """A part of a message's content."""

    type: str = "text"
    text: str = ""
    refusal: str = ""


# A string is one text part.
Content = Annotated[
    tuple[ContentPart, ...],
    BeforeValidator(one_text_block, json_schema_input_type=str | tuple[ContentPart, ...]),
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


class ChatCustomTool(RequestModel):
    """A tool of the client whose input is text."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    description: str = ""
    format: JsonValue = None


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
    is_function = fields.get("type", "function") in {"function", None}
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
    return {"type": choice} if isinstance(choice, str) else choice


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


class StreamOptions(RequestModel):
    """Options of a stream."""

    include_usage: StrictBool = False


class Reasoning(RequestModel):
    """OpenRouter's options of thinking."""

    enabled: StrictBool | None = None
    effort: JsonValue = None
    max_tokens: Annotated[StrictInt, Field(ge=0, le=MAX_INT)] | None = None
    exclude: StrictBool = False  # the answer leaves the thought out


def _unlimited(tokens: int) -> int | None:
    if tokens == 0:
        raise PydanticCustomError(
            "no_tokens", "Input should be greater than or equal to 1, or -1 for no limit"
        )
    return None if tokens < 0 else tokens


def _stop_list(stop: object) -> object:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list):
        return texts
    return [text for text in cast("list[object]", texts) if text != ""]


# -1 means no limit to llama.cpp and LM Studio.
TokenLimit = Annotated[StrictInt, Field(ge=-1, le=MAX_INT), AfterValidator(_unlimited)] | None
Number = Annotated[float, Field(strict=True)]
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARS)]


class ChatRequest(RequestModel):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Annotated[str, Field(min_length=1)] = "local"
    stream: StrictBool = False
    stream_options: StreamOptions = StreamOptions()
    # Both count the thought. The first one takes precedence.
    max_completion_tokens: TokenLimit = None
    max_tokens: TokenLimit = None
    stop: Annotated[
        tuple[StopText, ...],
        Field(max_length=MAX_STOP_SEQUENCES),
        BeforeValidator(_stop_list, json_schema_input_type=str | tuple[StopText, ...]),
    ] = ()
    # None: from the settings or the model.
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1, le=MAX_INT)] | None = None  # -1 is off
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=2)] | None = None
    seed: Annotated[StrictInt, Field(ge=-MAX_INT - 1, le=MAX_INT)] | None = None
    # Without effect so far, but for a line in the log.
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0
    # Refused unless they ask for nothing.
    n: StrictInt = 1
    logprobs: StrictBool = False
    top_logprobs: StrictInt = 0
    logit_bias: dict[str, JsonValue] = {}  # noqa: RUF012 -- pydantic copies it
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
