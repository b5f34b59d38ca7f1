"""Options of a request: thinking, output, context edits, and the thread that it belongs to."""

from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from pensieve.api.base import RequestModel

_COUNT = Field(ge=0, le=2**63 - 1)


class EnabledThinking(RequestModel):
    """Thinking within a budget of tokens."""

    type: Literal["enabled"]
    budget_tokens: Annotated[StrictInt, Field(ge=1024, le=2**63 - 1)]
    display: JsonValue = None


class UnbudgetedThinking(RequestModel):
    """Thinking without a budget, or none."""

    type: Literal["adaptive", "disabled", "between_tools"]
    display: JsonValue = None


Thinking = Annotated[EnabledThinking | UnbudgetedThinking, Field(discriminator="type")]


class OutputConfig(RequestModel):
    """The form of the answer, and the effort. Task budgets are ignored."""

    format: JsonValue = None
    effort: JsonValue = None  # used if the chat template has a variable for it


class InputTokens(RequestModel):
    """A number of tokens of the prompt."""

    type: Literal["input_tokens"]
    value: Annotated[StrictInt, _COUNT]


class ToolUses(RequestModel):
    """A number of tool uses."""

    type: Literal["tool_uses"]
    value: Annotated[StrictInt, _COUNT]


class ClearToolUses(RequestModel):
    """Omits old tool results once the prompt exceeds `trigger`, except the last ones."""

    type: Literal["clear_tool_uses_20250919"]
    trigger: Annotated[InputTokens | ToolUses, Field(discriminator="type")] = InputTokens(
        type="input_tokens", value=100_000
    )
    keep: ToolUses = ToolUses(type="tool_uses", value=3)
    clear_at_least: InputTokens | None = None
    exclude_tools: tuple[str, ...] = ()
    # True to omit the inputs of the calls too; or the names of the tools whose inputs to omit.
    clear_tool_inputs: StrictBool | tuple[str, ...] = False


def _supported_edits(edits: object) -> object:
    # Other edits are ignored without an error: the answer lists those that were applied.
    if not isinstance(edits, list | tuple):
        return edits
    return [
        edit for edit in cast("list[object]", edits) if _type(edit) == "clear_tool_uses_20250919"
    ]


def _type(edit: object) -> object:
    return cast("dict[str, object]", edit).get("type") if isinstance(edit, dict) else None


class ContextManagement(RequestModel):
    """Edits of the context before it becomes a prompt."""

    edits: Annotated[
        tuple[ClearToolUses, ...],
        BeforeValidator(_supported_edits, json_schema_input_type=tuple[JsonValue, ...]),
    ] = ()


class CreateThread(RequestModel):
    """Stores the conversation, so that later requests can continue it."""

    type: Literal["create"]


class ContinueThread(RequestModel):
    """Continues after an earlier answer: `messages` contains only the new messages."""

    type: Literal["continue"]
    previous_message_id: Annotated[str, Field(min_length=1)]


Thread = Annotated[CreateThread | ContinueThread, Field(discriminator="type")]
