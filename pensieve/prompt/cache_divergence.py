"""Where a session's prompt stops being its last one: the token, and the block of the request that stands there.

A session goes on from its last prompt, word for word: that is what the prefix cache lives on. Where it does not (the client took
something back, changed an old turn, compacted), somebody may want to know what it was. Texts are compared, not tokens: they are
the same up to the same place, and tell the block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Conversation
from pensieve.prompt.boundaries import common_prefix_length
from pensieve.prompt.conversation.block_text import ToolNames, block_text, result_text
from pensieve.prompt.conversation.turns import is_silent
from pensieve.prompt.render import Prompt
from pensieve.prompt.template.chat_messages import tool_uses

# So much of a block's text is looked for; a call's name no further than so many letters from where the block before begins.
_CHARS = 60
_NEAR = 1000


@dataclass(frozen=True, slots=True)
class LastPrompt:
    """What is kept of a session's last prompt. shared: its first letters, which the next one should begin with."""

    text: str
    shared: int
    tokens: int

    @classmethod
    def of(cls, prompt: Prompt) -> "LastPrompt":
        """All of it but what begins the answer, which may change with what is asked of that."""
        text = prompt.rendered.text
        return cls(text, len(text) - len(prompt.opening or ""), len(prompt.tokens))


@dataclass(frozen=True, slots=True)
class Divergence:
    """tokens: that both prompts begin with, of those of the last one. place: the block that begins or stands there."""

    tokens: int
    last_tokens: int
    place: str


def divergence(
    last: LastPrompt, prompt: Prompt, conversation: Conversation, neutralize: Callable[[str], str]
) -> Divergence | None:
    """Where `prompt`, made of `conversation`, leaves the last one; None where it goes on from it."""
    letters = common_prefix_length(last.text, prompt.rendered.text)
    if letters >= last.shared:
        return None
    begun = (
        (place, path)
        for place, path in _places(conversation, prompt.rendered.text, neutralize)
        if place <= letters
    )
    path = max(begun, default=(0, "the template's own words"))[1]
    return Divergence(prompt.rendered.tokens_within(letters), last.tokens, path)


def _places(
    conversation: Conversation, text: str, neutralize: Callable[[str], str]
) -> Iterator[tuple[int, str]]:
    """Where in the text each tool and block begins, as far as it can be found, and its path in the request."""
    for at, tool in enumerate(conversation.tools):
        if (place := text.find(neutralize(tool.name))) >= 0:
            yield place, f"tools.{at}"
    known = ToolNames(tool_uses(conversation.messages), {})
    reached = 0
    for path, block in _blocks(conversation):
        words = neutralize(_words(block, known)[: 2 * _CHARS])[:_CHARS]
        end = reached + _NEAR if isinstance(block, ToolUseBlock) else len(text)
        if (place := text.find(words, reached, end)) >= 0:
            reached = place + len(words)
            yield place, path


def _words(block: ContentBlock, known: ToolNames) -> str:
    """What stands in the prompt of a block, whoever writes it."""
    match block:
        case ToolUseBlock():
            return block.name
        case ToolResultBlock():
            return result_text(block, known)
        case _:
            return block_text(block, known)


def _blocks(conversation: Conversation) -> Iterator[tuple[str, ContentBlock]]:
    for at, block in enumerate(conversation.system):
        yield f"system.{at}", block
    for at, turn in enumerate(conversation.messages):
        for within, block in enumerate(turn.content):
            if not is_silent(block) and not isinstance(block, ThinkingBlock):
                yield f"messages.{at}.content.{within}", block
