"""The bodies of `POST /v1/responses` and `/v1/responses/input_tokens`. Unknown fields are ignored.

Input items, tools and the text's options stay the objects that the client sent: a response shows
them again, and a kind that is not known here fails no request.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from pensieve.api.base import RequestModel
from pensieve.api.messages.request import MAX_MESSAGES
from pensieve.api.pagination import INTEGER_TEXT, Query
from pensieve.openai.chat_request import MAX_TOOLS
from pensieve.openai.generation_fields import (
    MAX_TOP_LOGPROBS,
    GenerationFields,
    TokenLimit,
    text_or_list,
)

JsonObject = dict[str, JsonValue]


def _one_message(value: object) -> object:
    return [_message(value)] if isinstance(value, str) else text_or_list(value)


def _message(text: str) -> JsonObject:
    return {"type": "message", "role": "user", "content": text}


class TextFormat(RequestModel):
    """The form of the answer's text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    value: Annotated[JsonObject | None, Field(alias="schema")] = None
    strict: StrictBool = False


class ReasoningOptions(RequestModel):
    """Options of thinking."""

    effort: JsonValue = None
    # Asks for the thought as a summary: here the summary is the thought.
    summary: JsonValue = None
    generate_summary: JsonValue = None  # the former name


class RetrieveQuery(Query):
    """What the response is sent as: refused unless it is a whole."""

    stream: bool = False
    starting_after: Annotated[int | None, INTEGER_TEXT] = None


class InputItemsQuery(Query):
    """A page of items."""

    limit: Annotated[int, Field(ge=1, le=100), INTEGER_TEXT] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class InputTokensRequest(RequestModel):
    """The body of `POST /v1/responses/input_tokens`."""

    model: Annotated[str, Field(min_length=1)] = "local"
    # A string is one message of the user.
    input: Annotated[
        tuple[JsonObject, ...],
        Field(max_length=MAX_MESSAGES),
        BeforeValidator(_one_message, json_schema_input_type=str | tuple[JsonObject, ...]),
    ] = ()
    instructions: str = ""
    previous_response_id: str | None = None
    tools: Annotated[tuple[JsonObject, ...], Field(max_length=MAX_TOOLS)] = ()
    tool_choice: JsonValue = None
    parallel_tool_calls: StrictBool = True
    text: JsonObject = {}  # noqa: RUF012 -- pydantic copies it
    reasoning: ReasoningOptions = ReasoningOptions()
    # Refused: conversations are not stored.
    conversation: JsonValue = None


class ResponsesRequest(GenerationFields, InputTokensRequest):
    """The body of `POST /v1/responses`."""

    max_output_tokens: TokenLimit = None
    include: tuple[str, ...] = ()
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    store: StrictBool = True
    # Refused unless they ask for nothing.
    background: StrictBool = False
    prompt: JsonValue = None
    # Shown again in the response, without effect.
    metadata: dict[str, str] = {}  # noqa: RUF012 -- pydantic copies it
    max_tool_calls: StrictInt | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None

    @property
    def is_warm_up(self) -> bool:
        """Whether it is to have the model loaded: Codex sends an empty text for that."""
        return self.input == (_message(""),)

    @property
    def has_logprobs(self) -> bool:
        return "message.output_text.logprobs" in self.include or self.top_logprobs > 0

    @property
    def seals_thoughts(self) -> bool:
        """Whether the client wants to send thoughts back in `encrypted_content`."""
        return "reasoning.encrypted_content" in self.include

    @property
    def has_summary(self) -> bool:
        """Whether the thought is sent as a summary, where clients look for it."""
        reasoning = self.reasoning
        return self.seals_thoughts or bool(reasoning.summary or reasoning.generate_summary)
