"""Anthropic's messages as the turns of a chat template: roles never twice in a row, blocks still blocks (block_text.py).

Decided here, once, is what is not shown to the model at all: Claude Code's billing line, which names a client version,
its counters of tokens left, which change with every request, and system turns whose time is over. Knows no tokens.
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
    """One turn of a chat template: the blocks of each message that it is made of."""

    role: Role
    messages: tuple[tuple[ContentBlock, ...], ...]

    @property
    def blocks(self) -> Iterator[ContentBlock]:
        """All of them in order."""
        return (block for message in self.messages for block in message)

    @property
    def cache_control(self) -> CacheControl | None:
        """The last cache breakpoint in it."""
        marks = [block.cache_control for block in self.blocks if block.cache_control]
        return marks[-1] if marks else None


def chat_turns(
    conversation: Conversation, tools: Iterable[str] = (), told: Iterable[str] = ()
) -> list[ChatTurn]:
    """The conversation's turns, the system prompt first. What it says of `tools` comes before the client's own words, which name
    the folder or the day and so end what conversations share; what else the model is `told`, behind them.
    """
    written = (ChatTurn(turn.role, (_shown(turn),)) for turn in _lasting(conversation.messages))
    system = (*map(_said, tools), _system(conversation.system), *map(_said, told))
    return merged([ChatTurn("system", system), *written])


def _said(text: str) -> tuple[ContentBlock, ...]:
    return (TextBlock(type="text", text=text),)


def merged(turns: Iterable[ChatTurn]) -> list[ChatTurn]:
    """Turns of one role after each other made one; empty ones left out."""
    said = (turn for turn in turns if not all(map(is_silent, turn.blocks)))
    return [
        ChatTurn(role, tuple(message for turn in group for message in turn.messages))
        for role, group in groupby(said, key=_role)
    ]


def trimmed(turn: ChatTurn) -> ChatTurn:
    """The turn without the space at its end, after which a model would go on badly."""
    messages = list(turn.messages)
    while messages:
        blocks = without_last_space(messages.pop())
        if blocks:
            return ChatTurn(turn.role, (*messages, blocks))
    return ChatTurn(turn.role, ())


def without_last_space(blocks: tuple[ContentBlock, ...]) -> tuple[ContentBlock, ...]:
    """The blocks without the space at their end."""
    while blocks and isinstance(block := blocks[-1], TextBlock):
        blocks = blocks[:-1]
        if text := block.text.rstrip():
            return (*blocks, block.model_copy(update={"text": text}))
    return blocks


def _role(turn: ChatTurn) -> Role:
    return turn.role


def _lasting(turns: tuple[Turn, ...]) -> Iterator[Turn]:
    """The turns without those that were for one user turn only, once a later one is there."""
    last_user = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=-1)
    for index, turn in enumerate(turns):
        if turn.clear_at == "never" or index > last_user:
            yield turn


def _shown(turn: Turn) -> tuple[ContentBlock, ...]:
    if turn.role == "system":
        return _system(turn.content)
    return tuple(block for block in turn.content if not _is_counter(block))


def is_silent(block: ContentBlock) -> bool:
    """A template for text alone writes nothing of it: thinking of earlier turns, what only the hosted API reads."""
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
