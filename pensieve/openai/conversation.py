"""A chat request as a conversation of the Messages API, from which the prompt is rendered."""

from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from pensieve.api.messages.options import (
    EnabledThinking,
    OutputConfig,
    Thinking,
    UnbudgetedThinking,
)
from pensieve.api.messages.request import Conversation
from pensieve.api.messages.tools import (
    AnyChoice,
    AutoChoice,
    CustomTool,
    NamedChoice,
    NoChoice,
    ToolChoice,
)
from pensieve.errors import InvalidRequestError
from pensieve.openai.chat_request import (
    AllowedTools,
    ChatCustomTool,
    ChatRequest,
    ChatTool,
    FunctionTool,
)
from pensieve.openai.generation_fields import check_supported
from pensieve.openai.history import turns_of
from pensieve.openai.tool_kinds import log_ignored_tools, text_tool

MIN_BUDGET = 1024  # the Messages API's
_NO_ARGUMENTS: dict[str, JsonValue] = {"type": "object", "properties": {}}
_CHOICES = "none, auto, required, or an object that names a tool or `allowed_tools`"


def conversation_of(request: ChatRequest, *, sees: bool = False) -> Conversation:
    """sees: whether the model does.

    Raises `InvalidRequestError` for what cannot be honoured and must not be ignored.
    """
    _check(request)
    tools = tuple(_tools(request.tools))
    turns = turns_of(request.messages, request.model, sees=sees)
    schema = _output_schema(request)
    if schema is not None and turns[-1].role == "assistant":
        raise InvalidRequestError(
            "response_format: The last message is the assistant's, and its continuation cannot be"
            " held to a format"
        )
    return Conversation(
        model=request.model,
        messages=turns,
        tools=tools,
        tool_choice=_choice(request, [tool.name for tool in tools]),
        thinking=_thinking(request),
        output_config=OutputConfig(format=schema, effort=_effort(request)),
    )


def _check(request: ChatRequest) -> None:
    check_supported(
        {
            "modalities": any(kind != "text" for kind in request.modalities),
            "audio": bool(request.audio),
        }
    )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError("top_logprobs: Only allowed if `logprobs` is true")
    if request.functions:
        raise InvalidRequestError("functions: This server supports their successor `tools` alone")


def tool_paths_of(request: ChatRequest) -> list[str]:
    """Return where the tools of the conversation are in the request."""
    kinds = (
        "function" if tool.function else "custom" if tool.custom else None for tool in request.tools
    )
    return [f"tools.{at}.{kind}" for at, kind in enumerate(kinds) if kind]


def custom_tools_of(request: ChatRequest) -> frozenset[str]:
    """Return the names of the tools whose input is text."""
    return frozenset(tool.custom.name for tool in request.tools if tool.custom is not None)


# Tools.


def _tools(tools: Sequence[ChatTool]) -> Iterator[CustomTool]:
    ignored: list[str] = []
    for at, tool in enumerate(tools):
        if tool.function is not None:
            yield _function(tool.function)
        elif tool.custom is not None:
            yield _custom(tool.custom, f"tools.{at}.custom")
        elif tool.type in {"function", "custom"}:
            raise InvalidRequestError(f"tools.{at}.{tool.type}: Field required")
        else:
            ignored.append(tool.type)
    log_ignored_tools(ignored)


def _function(tool: FunctionTool) -> CustomTool:
    return CustomTool(
        type="custom",
        name=tool.name,
        description=tool.description,
        input_schema=tool.parameters or _NO_ARGUMENTS,
        strict=tool.strict,
    )


def _custom(tool: ChatCustomTool, path: str) -> CustomTool:
    form = tool.format
    if form.type == "grammar" and form.grammar is None:
        raise InvalidRequestError(f"{path}.format.grammar: Field required")
    grammar = form.grammar if form.type == "grammar" else None
    return text_tool(tool.name, tool.description, grammar)


def _choice(request: ChatRequest, names: Sequence[str]) -> ToolChoice | None:
    choice, is_single = request.tool_choice, not request.parallel_tool_calls
    match choice.type:
        case "auto":
            return AutoChoice(type="auto", disable_parallel_tool_use=is_single) if names else None
        case "none":
            return NoChoice(type="none")
        case "required":
            _require(names)
            return AnyChoice(type="any", disable_parallel_tool_use=is_single)
        case "allowed_tools" if choice.allowed_tools is not None:
            return _allowed(choice.allowed_tools, names, is_single=is_single)
        case "function" | "custom" if choice.tool_name:
            _require_tool(choice.tool_name, names)
            return NamedChoice(
                type="tool", name=choice.tool_name, disable_parallel_tool_use=is_single
            )
        case _:
            raise InvalidRequestError(f"tool_choice: Input should be {_CHOICES}")


def _allowed(choice: AllowedTools, names: Sequence[str], *, is_single: bool) -> ToolChoice:
    allowed = tuple(tool.tool_name for tool in choice.tools)
    for name in allowed:
        _require_tool(name, names)
    if choice.mode == "required":
        _require(allowed)
        return AnyChoice(type="any", allowed=allowed, disable_parallel_tool_use=is_single)
    return AutoChoice(type="auto", allowed=allowed, disable_parallel_tool_use=is_single)


def _require(names: Sequence[str]) -> None:
    if not names:
        raise InvalidRequestError("tool_choice: There is no tool that could be called")


def _require_tool(name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise InvalidRequestError(f"tool_choice: Tool '{name}' not found in `tools`")


# The answer's form and thought.


def _output_schema(request: ChatRequest) -> JsonValue:
    form = request.response_format
    if form.type == "text":
        return None
    if form.type == "json_schema" and form.json_schema is None:
        raise InvalidRequestError("response_format.json_schema: Field required")
    schema = form.value if form.json_schema is None else form.json_schema.value
    is_strict = form.json_schema is not None and form.json_schema.strict
    return {"type": "json_schema", "schema": schema or {"type": "object"}, "strict": is_strict}


def _effort(request: ChatRequest) -> JsonValue:
    """Return the first of the fields for it that is set."""
    kwargs = request.chat_template_kwargs
    efforts = (request.reasoning_effort, request.reasoning.effort, kwargs.get("reasoning_effort"))
    return next((effort for effort in efforts if effort is not None), None)


def _thinking(request: ChatRequest) -> Thinking:
    """Return what a request says of thinking. Models that can think do, unless it is switched off:
    so do their templates, and other servers.
    """
    if _is_off(request):
        return UnbudgetedThinking(type="disabled")
    display = "omitted" if request.reasoning.exclude else None
    if (budget := request.reasoning.max_tokens) is not None:
        budget = max(budget, MIN_BUDGET)
        return EnabledThinking(type="enabled", budget_tokens=budget, display=display)
    return UnbudgetedThinking(type="adaptive", display=display)


def _is_off(request: ChatRequest) -> bool:
    kwargs = request.chat_template_kwargs
    switches = (
        request.reasoning.enabled,
        request.enable_thinking,
        kwargs.get("enable_thinking"),
        kwargs.get("thinking"),
        request.thinking,
    )
    if any(switch is False for switch in switches) or _effort(request) == "none":
        return True
    return isinstance(request.thinking, dict) and request.thinking.get("type") == "disabled"
