"""Find where a session's prompt differs from its previous prompt: the token and the block.

The prefix cache helps only while each prompt continues the previous one. If the client removed or
changed an old turn, or compacted, server/messages/sessions.py logs what this module finds. It
compares texts, not tokens: texts differ at the same point, and show which block it is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Conversation
from pensieve.prompt.conversation.block_text import ToolNames, block_text, result_text
from pensieve.prompt.conversation.turns import is_silent
from pensieve.prompt.render import Prompt
from pensieve.prompt.template.chat_messages import tool_uses
from pensieve.prompt.template.renderer import common_prefix_length

# Leading characters of a block's text to search for.
_CHARS = 60
# A call's name is searched for only this close to the previous block.
_MAX_DISTANCE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class LastPrompt:
    text: str
    shared_chars: int  # a prompt that continues this one has the same first characters
    tokens: int

    @classmethod
    def of(cls, prompt: Prompt) -> "LastPrompt":
        """Exclude the opening of the answer, which may change with the request's options."""
        text = prompt.rendered.text
        return cls(text, len(text) - len(prompt.opening or ""), len(prompt.tokens))


@dataclass(frozen=True, slots=True)
class Divergence:
    tokens: int  # common to both prompts
    last_tokens: int  # of the previous prompt
    path: str  # of the block in which the texts differ


def divergence(
    last: LastPrompt, prompt: Prompt, conversation: Conversation, neutralize: Callable[[str], str]
) -> Divergence | None:
    """Return where `prompt` differs from the previous one; None if it continues it."""
    chars = common_prefix_length(last.text, prompt.rendered.text)
    if chars >= last.shared_chars:
        return None
    starts = (
        (offset, path)
        for offset, path in _block_starts(conversation, prompt.rendered.text, neutralize)
        if offset <= chars
    )
    path = max(starts, default=(0, "the template's own text"))[1]
    return Divergence(prompt.rendered.tokens_within(chars), last.tokens, path)


def _block_starts(
    conversation: Conversation, text: str, neutralize: Callable[[str], str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset of each tool and block found in the text, and its path in the request."""
    for at, tool in enumerate(conversation.tools):
        if (offset := text.find(neutralize(tool.name))) >= 0:
            yield offset, f"tools.{at}"
    tool_names = ToolNames(tool_uses(conversation.messages), {})
    search_from = 0
    for path, block in _blocks(conversation):
        chunk = neutralize(_content_text(block, tool_names)[: 2 * _CHARS])[:_CHARS]
        end = search_from + _MAX_DISTANCE_CHARS if isinstance(block, ToolUseBlock) else len(text)
        if (offset := text.find(chunk, search_from, end)) >= 0:
            search_from = offset + len(chunk)
            yield offset, path


def _content_text(block: ContentBlock, tool_names: ToolNames) -> str:
    match block:
        case ToolUseBlock():
            return block.name
        case ToolResultBlock():
            return result_text(block, tool_names)
        case _:
            return block_text(block, tool_names)


def _blocks(conversation: Conversation) -> Iterator[tuple[str, ContentBlock]]:
    for at, block in enumerate(conversation.system):
        yield f"system.{at}", block
    for at, turn in enumerate(conversation.messages):
        for within, block in enumerate(turn.content):
            if not is_silent(block):
                yield f"messages.{at}.content.{within}", block
