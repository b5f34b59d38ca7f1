"""Input items, decoded from the client's objects. Kinds that are not known here are None.

The names of fields are the client's, so that errors have the paths that it wrote.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, JsonValue

from pensieve.api.base import RequestModel, one_text_block
from pensieve.api.messages.request import decode
from pensieve.errors import InvalidRequestError
from pensieve.openai.content_parts import ContentPart
from pensieve.openai.generation_fields import text_or_list
from pensieve.openai.responses.request import JsonObject

_RequestT = TypeVar("_RequestT", bound=RequestModel)

CallId = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


def _parts(content: object) -> object:
    return one_text_block(text_or_list(content))


# A string is one text part.
Content = Annotated[tuple[ContentPart, ...], BeforeValidator(_parts)]


class Message(RequestModel):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content = ()


class FunctionCall(RequestModel):
    """A call of a function in an earlier answer."""

    call_id: CallId
    name: Name
    namespace: str = ""
    arguments: JsonValue = ""  # JSON as text; some clients send the object itself


class CustomToolCall(RequestModel):
    """A call of a custom tool in an earlier answer."""

    call_id: CallId
    name: Name
    namespace: str = ""
    input: str = ""


class BuiltInCall(RequestModel):
    """A call of a tool that OpenAI defines and the client runs."""

    type: Literal["local_shell_call", "shell_call", "apply_patch_call"]
    call_id: CallId
    action: JsonObject = {}  # noqa: RUF012 -- pydantic copies it
    operation: JsonObject = {}  # noqa: RUF012 -- pydantic copies it

    @property
    def name(self) -> str:
        return self.type.removesuffix("_call")

    @property
    def input(self) -> JsonObject:
        return self.action or self.operation


class CallOutput(RequestModel):
    """The result of a call: a text, parts, or what a tool of OpenAI's returns."""

    call_id: CallId
    output: JsonValue = ""


class Reasoning(RequestModel):
    """The thought of an earlier answer."""

    summary: tuple[ContentPart, ...] = ()
    content: tuple[ContentPart, ...] = ()
    encrypted_content: str = ""

    @property
    def text(self) -> str:
        return "\n\n".join(part.text for part in self.content or self.summary)


class AddedTools(RequestModel):
    """Tools that are added in the middle of a conversation."""

    tools: tuple[JsonObject, ...] = ()


Item = Message | FunctionCall | CustomToolCall | BuiltInCall | CallOutput | Reasoning | AddedTools

_KINDS: Mapping[str, type[Item]] = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": CallOutput,
    "custom_tool_call": CustomToolCall,
    "custom_tool_call_output": CallOutput,
    "local_shell_call": BuiltInCall,
    "local_shell_call_output": CallOutput,
    "shell_call": BuiltInCall,
    "shell_call_output": CallOutput,
    "apply_patch_call": BuiltInCall,
    "apply_patch_call_output": CallOutput,
    "reasoning": Reasoning,
    "additional_tools": AddedTools,
}


def item_of(item: JsonObject, path: str) -> Item | None:
    """Return an item; None for a kind that is not known here. Raises `InvalidRequestError`."""
    kind = _KINDS.get(kind_of(item))
    if kind is None:
        return None
    # The results of the local shell tool name their call by `id`.
    fields = {"call_id": item.get("id"), **item} if kind is CallOutput else item
    return decode_at(path, kind, fields)


def kind_of(item: JsonObject) -> str:
    """Return the item's type. Clients may leave out those of messages and references."""
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    return "message" if "role" in item or "id" not in item else "item_reference"


def decode_at(path: str, kind: type[_RequestT], fields: object) -> _RequestT:
    """Decode a part of the request. Raises `InvalidRequestError` with its whole path."""
    try:
        return decode(kind, fields)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}.{error.message}") from None
