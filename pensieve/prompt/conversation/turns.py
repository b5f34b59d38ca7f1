"""Convert messages to turns of a chat template: consecutive turns differ in role.

Also removes what the model must not see: Claude Code's billing line, which contains the client's
version; its counters of remaining tokens, which change with every request; expired system turns.
Blocks stay blocks (block_text.py). Knows no tokens.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from pensieve.api.messages.content_blocks import (
    CacheControl,
    CompactionBlock,
    ContentBlock,
    HostedBlock,
    TextBlock,
    ThinkingBlock,
)
from pensieve.api.messages.request import Conversation, Role, Turn

_BILLING = "x-anthropic-billing-header:"
_COUNTER = re.compile(r"<total_tokens>[\d,. ]+tokens left\s*(?:</total_tokens>)?\n?")


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn of a chat template: the blocks of each of its messages."""

    role: Role
    messages: tuple[tuple[ContentBlock, ...], ...]

    @property
    def blocks(self) -> Iterator[ContentBlock]:
        return (block for message in self.messages for block in message)

    @property
    def cache_control(self) -> CacheControl | None:
        """The last cache breakpoint in the turn."""
        marks = [block.cache_control for block in self.blocks if block.cache_control]
        return marks[-1] if marks else None


def chat_turns(
    conversation: Conversation, tools: Iterable[str] = (), instructions: Iterable[str] = ()
) -> list[ChatTurn]:
    """Return the conversation's turns, the system prompt first.

    `tools` precede the client's own system text, which names the folder or the day and so ends what
    conversations share; `instructions` follow it.
    """
    turns = (
        ChatTurn(turn.role, (_visible_blocks(turn),)) for turn in _unexpired(conversation.messages)
    )
    system = (
        *map(_text_block, tools),
        _system(conversation.system),
        *map(_text_block, instructions),
    )
    return merged([ChatTurn("system", system), *turns])


def _text_block(text: str) -> tuple[ContentBlock, ...]:
    return (TextBlock(type="text", text=text),)


def merged(turns: Iterable[ChatTurn]) -> list[ChatTurn]:
    """Merge consecutive turns of one role and drop empty ones."""
    nonempty = (turn for turn in turns if not all(map(is_silent, turn.blocks)))
    return [
        ChatTurn(role, tuple(message for turn in group for message in turn.messages))
        for role, group in groupby(nonempty, key=_role)
    ]


def trimmed(turn: ChatTurn) -> ChatTurn:
    """Return the turn without trailing whitespace, after which models continue badly."""
    messages = list(turn.messages)
    while messages:
        blocks = without_last_space(messages.pop())
        if blocks:
            return ChatTurn(turn.role, (*messages, blocks))
    return ChatTurn(turn.role, ())


def without_last_space(blocks: tuple[ContentBlock, ...]) -> tuple[ContentBlock, ...]:
    while blocks and isinstance(block := blocks[-1], TextBlock):
        blocks = blocks[:-1]
        if text := block.text.rstrip():
            return (*blocks, block.model_copy(update={"text": text}))
    return blocks


def _role(turn: ChatTurn) -> Role:
    return turn.role


def _unexpired(turns: tuple[Turn, ...]) -> Iterator[Turn]:
    """Drop turns that apply to one user turn, once there is a later one."""
    last_user = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=-1)
    for index, turn in enumerate(turns):
        if turn.clear_at == "never" or index > last_user:
            yield turn


def _visible_blocks(turn: Turn) -> tuple[ContentBlock, ...]:
    if turn.role == "system":
        return _system(turn.content)
    return tuple(block for block in turn.content if not _is_counter(block))


def is_silent(block: ContentBlock) -> bool:
    """Return whether the prompt shows nothing of a block: earlier thinking, hosted API data."""
    match block:
        case TextBlock():
            return not block.text
        case CompactionBlock():
            return not block.content
        case _:
            return isinstance(block, ThinkingBlock | HostedBlock)


def _is_counter(block: ContentBlock) -> bool:
    if not isinstance(block, TextBlock) or len(block.text) > 100:
        return False
    return bool(_COUNTER.fullmatch(block.text.strip()))


def _system(blocks: Iterable[ContentBlock]) -> tuple[ContentBlock, ...]:
    return tuple(_without_counter(block) for block in blocks if not _is_billing(block))


def _is_billing(block: ContentBlock) -> bool:
    return isinstance(block, TextBlock) and block.text.startswith(_BILLING)


def _without_counter(block: ContentBlock) -> ContentBlock:
    if not isinstance(block, TextBlock) or "<total_tokens>" not in block.text:
        return block
    return block.model_copy(update={"text": _COUNTER.sub("", block.text)})
