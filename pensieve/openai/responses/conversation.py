"""A Responses request as a conversation of the Messages API, from which the prompt is rendered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic import JsonValue

from pensieve.api.messages.content_blocks import TextBlock
from pensieve.api.messages.options import OutputConfig, UnbudgetedThinking
from pensieve.api.messages.request import Conversation, Turn
from pensieve.api.messages.tools import AnyChoice, AutoChoice, NamedChoice, NoChoice, ToolChoice
from pensieve.errors import InvalidRequestError
from pensieve.openai.generation_fields import check_supported
from pensieve.openai.responses.history import turns_of
from pensieve.openai.responses.items import AddedTools, decode_at, kind_of
from pensieve.openai.responses.request import (
    InputTokensRequest,
    JsonObject,
    ResponsesRequest,
    TextFormat,
)
from pensieve.openai.responses.tools import DeclaredTools, declared_tools

_CHOICES = "none, auto, required, or an object that names a tool or `allowed_tools`"
# In place of no input at all, which some clients send to have a model loaded.
_NOTHING = Turn(role="user", content=(TextBlock(type="text", text=" "),))


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    conversation: Conversation
    tools: DeclaredTools
    is_empty: bool = False  # there is nothing that could be answered


def translated(
    request: InputTokensRequest, stored: Sequence[JsonObject] = (), *, sees: bool = False
) -> TranslatedRequest:
    """Return the whole conversation, which `stored` items begin. sees: whether the model does.

    Raises `InvalidRequestError` for what cannot be honoured and must not be ignored.
    """
    _refuse_unsupported(request)
    tools = declared_tools(request.tools)
    items = (*stored, *request.input)
    known = _with_added(tools, items, len(stored))
    turns = turns_of(items, known, request.model, len(stored), sees=sees)
    if not turns:
        _check_has_input(request)
    schema = _output_schema(request.text)
    if schema is not None and turns and turns[-1].role == "assistant":
        raise InvalidRequestError(
            "text.format: The last item is the assistant's, and its continuation cannot be held to"
            " a format"
        )
    conversation = Conversation(
        model=request.model,
        system=tuple(_instructions(request)),
        messages=turns or (_NOTHING,),
        tools=tools.tools,
        tool_choice=_choice(request, tools),
        thinking=UnbudgetedThinking(type="disabled" if _is_off(request) else "adaptive"),
        output_config=OutputConfig(format=schema, effort=request.reasoning.effort),
    )
    return TranslatedRequest(conversation, known, is_empty=not turns)


def _refuse_unsupported(request: InputTokensRequest) -> None:
    if request.conversation:
        raise InvalidRequestError("conversation: This server does not support it")
    if isinstance(request, ResponsesRequest):
        check_supported(
            {
                "background": request.background,
                "prompt": bool(request.prompt),
                "n": request.n != 1,
            }
        )


def _check_has_input(request: InputTokensRequest) -> None:
    """Refuse a request that could only be answered with nothing, which clients take for a fault of
    the server. Tokens can be counted without input.
    """
    if not isinstance(request, ResponsesRequest) or request.is_warm_up:
        return
    if "input" not in request.model_fields_set:
        raise InvalidRequestError("input: Field required")
    raise InvalidRequestError("input: at least one item must have content")


def _with_added(tools: DeclaredTools, items: Sequence[JsonObject], first: int) -> DeclaredTools:
    """Return `tools` with the names of those that input items add.

    first: the index of the item that the request calls `input[0]`.
    """
    refs = dict(tools.refs)
    for at, item in enumerate(items):
        if kind_of(item) == "additional_tools":
            path = f"input.{at - first}"
            added = decode_at(path, AddedTools, item)
            refs |= declared_tools(added.tools, f"{path}.tools").refs
    return replace(tools, refs=refs)


def _instructions(request: InputTokensRequest) -> Iterator[TextBlock]:
    if request.instructions:
        yield TextBlock(type="text", text=request.instructions)


def _is_off(request: InputTokensRequest) -> bool:
    return request.reasoning.effort == "none"


def _output_schema(text: JsonObject) -> JsonValue:
    form = decode_at("text.format", TextFormat, text.get("format") or {})
    if form.type == "text":
        return None
    if form.type == "json_schema" and form.value is None:
        raise InvalidRequestError("text.format.schema: Field required")
    schema = form.value or {"type": "object"}
    return {"type": "json_schema", "schema": schema, "strict": form.strict}


# Tool choices.


def _choice(request: InputTokensRequest, tools: DeclaredTools) -> ToolChoice | None:
    is_single = not request.parallel_tool_calls
    match _flat(request.tool_choice):
        case None | "auto":
            return AutoChoice(type="auto", disable_parallel_tool_use=is_single)
        case "none":
            return NoChoice(type="none")
        case "required":
            _require(tools.refs)
            return AnyChoice(type="any", disable_parallel_tool_use=is_single)
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            return _allowed(mode, cast("list[object]", allowed), tools, is_single=is_single)
        case {"type": "allowed_tools"}:
            raise InvalidRequestError("tool_choice: `mode` and `tools` are required")
        case dict() as choice:
            name = _required_name(choice, tools)
            return NamedChoice(type="tool", name=name, disable_parallel_tool_use=is_single)
        case _:
            raise InvalidRequestError(f"tool_choice: Input should be {_CHOICES}")


def _allowed(
    mode: str, choices: Sequence[object], tools: DeclaredTools, *, is_single: bool
) -> ToolChoice:
    """Return a choice among some tools. Those that cannot be run here are no choice."""
    names = (_name(choice, tools) for choice in choices)
    allowed = tuple(name for name in names if name is not None)
    if mode == "auto":
        return AutoChoice(type="auto", allowed=allowed, disable_parallel_tool_use=is_single)
    _require(allowed)
    return AnyChoice(type="any", allowed=allowed, disable_parallel_tool_use=is_single)


def _flat(choice: JsonValue) -> JsonValue:
    """Return a choice without the object in which chat completions have its fields."""
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    nested = choice.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **nested} if isinstance(nested, dict) else choice


def _required_name(choice: JsonObject, tools: DeclaredTools) -> str:
    if (name := _name(choice, tools)) is not None:
        return name
    kind = choice.get("type")
    wanted = choice.get("name") if kind in {"function", "custom"} else kind
    if not isinstance(wanted, str):
        raise InvalidRequestError(f"tool_choice: Input should be {_CHOICES}")
    raise InvalidRequestError(
        f"tool_choice: Tool '{wanted}' not found in `tools`, or it cannot be run here"
    )


def _name(choice: object, tools: DeclaredTools) -> str | None:
    """Return the model's name of the chosen tool; None if the model cannot call it."""
    match _flat(cast("JsonValue", choice)):
        case {"type": "function" | "custom", "namespace": str(namespace), "name": str(name)}:
            model_name = tools.model_name(name, namespace)
        case {"type": "function" | "custom", "name": str(name)}:
            model_name = tools.model_name(name)
        case _:
            return None
    return model_name if model_name in tools.refs else None


def _require(names: object) -> None:
    if not names:
        raise InvalidRequestError("tool_choice: There is no tool that could be called")
