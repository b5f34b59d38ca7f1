"""How a client wants its answer made: thinking, form of output, edits of the context, the thread it belongs to."""

from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from pensieve.api.base import RequestModel

_COUNT = Field(ge=0, le=2**63 - 1)


class EnabledThinking(RequestModel):
    """Think, within a budget."""

    type: Literal["enabled"]
    budget_tokens: Annotated[StrictInt, Field(ge=1024, le=2**63 - 1)]
    display: JsonValue = None


class UnbudgetedThinking(RequestModel):
    """Think as the model sees fit, or not at all."""

    type: Literal["adaptive", "disabled", "between_tools"]
    display: JsonValue = None


Thinking = Annotated[EnabledThinking | UnbudgetedThinking, Field(discriminator="type")]


class OutputConfig(RequestModel):
    """What the answer is to be like. effort: how hard to think, for models whose templates take it. Task budgets mean nothing."""

    format: JsonValue = None
    effort: JsonValue = None


class InputTokens(RequestModel):
    """So many tokens of the prompt."""

    type: Literal["input_tokens"]
    value: Annotated[StrictInt, _COUNT]


class ToolUses(RequestModel):
    """So many tool uses."""

    type: Literal["tool_uses"]
    value: Annotated[StrictInt, _COUNT]


class ClearToolUses(RequestModel):
    """Old tool results go when the prompt grows past `trigger`; the last ones stay.

    clear_tool_inputs: true for the calls' inputs too, or the names of the tools whose inputs go.
    """

    type: Literal["clear_tool_uses_20250919"]
    trigger: Annotated[InputTokens | ToolUses, Field(discriminator="type")] = InputTokens(
        type="input_tokens", value=100_000
    )
    keep: ToolUses = ToolUses(type="tool_uses", value=3)
    clear_at_least: InputTokens | None = None
    exclude_tools: tuple[str, ...] = ()
    clear_tool_inputs: StrictBool | tuple[str, ...] = False


def _known_edits(edits: object) -> object:
    """Edits that are not applied here are read past: the answer lists those that were."""
    if not isinstance(edits, list | tuple):
        return edits
    return [
        edit for edit in cast("list[object]", edits) if _kind(edit) == "clear_tool_uses_20250919"
    ]


def _kind(edit: object) -> object:
    return cast("dict[str, object]", edit).get("type") if isinstance(edit, dict) else None


class ContextManagement(RequestModel):
    """Edits of the context before the model sees it."""

    edits: Annotated[
        tuple[ClearToolUses, ...],
        BeforeValidator(_known_edits, json_schema_input_type=tuple[JsonValue, ...]),
    ] = ()


class CreateThread(RequestModel):
    """Keep this conversation, to be continued."""

    type: Literal["create"]


class ContinueThread(RequestModel):
    """Go on from an earlier answer: `messages` holds only what is new."""

    type: Literal["continue"]
    previous_message_id: Annotated[str, Field(min_length=1)]


Thread = Annotated[CreateThread | ContinueThread, Field(discriminator="type")]
