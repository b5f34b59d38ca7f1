"""Apply `context_management`: remove old tool results from a long prompt.

Prompts contain no thinking of earlier turns, so `clear_thinking_20251015` has nothing to clear.
Pure; the renderer counts tokens before and after.
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
    conversation: Conversation
    cleared_tool_uses: int


def clear_tool_uses(
    conversation: Conversation, edit: ClearToolUses, prompt_tokens: int
) -> Edited | None:
    """Return the edited conversation; None if the edit has nothing to clear."""
    uses = [block for turn in conversation.messages for block in _tool_uses(turn.content)]
    size = prompt_tokens if isinstance(edit.trigger, InputTokens) else len(uses)
    if size <= edit.trigger.value:
        return None
    cleared_ids = _clearable_ids(uses, edit)
    if not cleared_ids:
        return None
    turns = tuple(_without(turn, cleared_ids, edit) for turn in conversation.messages)
    return Edited(conversation.model_copy(update={"messages": turns}), len(cleared_ids))


def _tool_uses(blocks: Iterable[ContentBlock]) -> Iterable[ToolUseBlock]:
    return (block for block in blocks if isinstance(block, ToolUseBlock))


def _clearable_ids(uses: Sequence[ToolUseBlock], edit: ClearToolUses) -> frozenset[str]:
    old = uses[: max(0, len(uses) - edit.keep.value)]
    return frozenset(use.id for use in old if use.name not in edit.exclude_tools)


def _without(turn: Turn, cleared_ids: frozenset[str], edit: ClearToolUses) -> Turn:
    blocks = tuple(_cleared(block, cleared_ids, edit) for block in turn.content)
    return turn if blocks == turn.content else turn.model_copy(update={"content": blocks})


def _cleared(block: ContentBlock, cleared_ids: frozenset[str], edit: ClearToolUses) -> ContentBlock:
    match block:
        case ToolResultBlock(tool_use_id=name) if name in cleared_ids:
            return block.model_copy(update={"content": _CLEARED, "is_error": False})
        case ToolUseBlock(id=name) if name in cleared_ids and _loses_input(block, edit):
            return block.model_copy(update={"input": {}})
        case _:
            return block


def _loses_input(block: ToolUseBlock, edit: ClearToolUses) -> bool:
    match edit.clear_tool_inputs:
        case bool(all_inputs):
            return all_inputs
        case names:
            return block.name in names
