"""`context_management`: old tool results left out of a prompt that has grown past what the client set.

Thinking of earlier turns is written into no prompt here, so `clear_thinking_20251015` has nothing to clear. Pure; the
renderer counts tokens before and after.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.options import ClearToolUses, InputTokens
from pensieve.api.messages.request import Conversation, Turn

_CLEARED = (TextBlock(type="text", text="[old tool result removed]"),)


@dataclass(frozen=True, slots=True)
class Edited:
    """A conversation without the results of so many tool uses."""

    conversation: Conversation
    cleared_tool_uses: int


def clear_tool_uses(
    conversation: Conversation, edit: ClearToolUses, prompt_tokens: int
) -> Edited | None:
    """What is left of `conversation`, or None where the edit has nothing to do."""
    uses = [block for turn in conversation.messages for block in _tool_uses(turn.content)]
    size = prompt_tokens if isinstance(edit.trigger, InputTokens) else len(uses)
    if size <= edit.trigger.value:
        return None
    going = _going(uses, edit)
    if not going:
        return None
    turns = tuple(_without(turn, going, edit) for turn in conversation.messages)
    return Edited(conversation.model_copy(update={"messages": turns}), len(going))


def _tool_uses(blocks: Iterable[ContentBlock]) -> Iterable[ToolUseBlock]:
    return (block for block in blocks if isinstance(block, ToolUseBlock))


def _going(uses: Sequence[ToolUseBlock], edit: ClearToolUses) -> frozenset[str]:
    old = uses[: max(0, len(uses) - edit.keep.value)]
    return frozenset(use.id for use in old if use.name not in edit.exclude_tools)


def _without(turn: Turn, going: frozenset[str], edit: ClearToolUses) -> Turn:
    blocks = tuple(_cleared(block, going, edit) for block in turn.content)
    return turn if blocks == turn.content else turn.model_copy(update={"content": blocks})


def _cleared(block: ContentBlock, going: frozenset[str], edit: ClearToolUses) -> ContentBlock:
    match block:
        case ToolResultBlock(tool_use_id=name) if name in going:
            return block.model_copy(update={"content": _CLEARED, "is_error": False})
        case ToolUseBlock(id=name) if name in going and _loses_input(block, edit):
            return block.model_copy(update={"input": {}})
        case _:
            return block


def _loses_input(block: ToolUseBlock, edit: ClearToolUses) -> bool:
    match edit.clear_tool_inputs:
        case bool(all_inputs):
            return all_inputs
        case names:
            return block.name in names
