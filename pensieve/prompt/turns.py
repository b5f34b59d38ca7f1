"""Anthropic's messages as the turns of a chat template: text only, roles never twice in a row.

Decided here, once: blocks of one message are joined by a newline (an assistant's by nothing: it wrote them in one go),
messages of one role by an empty line. Claude Code's billing line is dropped: it names a client version, costs tokens
and changes the prompt's beginning. Thinking of earlier turns is dropped. Nothing here knows tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import assert_never

from pensieve.api.request import (
    ContentBlock,
    Conversation,
    MediaBlock,
    Role,
    TextBlock,
    ThinkingBlock,
    Turn,
)
from pensieve.errors import InvalidRequestError, ThreadUnsupportedError

_BILLING = "x-anthropic-billing-header:"


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn, as a chat template takes it."""

    role: Role
    text: str


def chat_turns(conversation: Conversation) -> list[ChatTurn]:
    """The conversation's turns, the system prompt first.

    Raises `InvalidRequestError` for content that no text model reads, for a user who says nothing, and for what would
    otherwise be lost without a word: a thread's earlier turns, a tool that must be used.
    """
    _refuse_what_would_be_lost(conversation)
    written = [_turn(index, turn, conversation) for index, turn in enumerate(conversation.messages)]
    return merged([ChatTurn("system", _system_text(conversation.system)), *written])


def _refuse_what_would_be_lost(conversation: Conversation) -> None:
    if conversation.thread is not None:
        raise ThreadUnsupportedError
    if conversation.tool_choice is not None and conversation.tool_choice.is_forced:
        raise InvalidRequestError(
            f"tool_choice: '{conversation.tool_choice.type}' cannot be honoured:"
            f" model '{conversation.model}' does not support tool use on this server"
        )


def merged(turns: Iterable[ChatTurn]) -> list[ChatTurn]:
    """Turns of one role after each other made one; empty ones left out."""
    spoken = (turn for turn in turns if turn.text)
    return [
        ChatTurn(role, "\n\n".join(turn.text for turn in group))
        for role, group in groupby(spoken, key=_role)
    ]


def _role(turn: ChatTurn) -> Role:
    return turn.role


def _system_text(blocks: tuple[TextBlock, ...]) -> str:
    return "\n".join(block.text for block in blocks if not block.text.startswith(_BILLING))


def _turn(index: int, turn: Turn, conversation: Conversation) -> ChatTurn:
    texts = [
        _text(block, f"messages.{index}.content.{at}", conversation.model)
        for at, block in enumerate(turn.content)
    ]
    separator = "" if turn.role == "assistant" else "\n"
    text = separator.join(text for text in texts if text)
    if turn.role == "user" and not text:
        raise InvalidRequestError(
            f"messages.{index}: all messages must have non-empty content"
            " except for the optional final assistant message"
        )
    return ChatTurn(turn.role, text)


def _text(block: ContentBlock, path: str, model: str) -> str:
    """A block's text. Claude Code replaces what is refused in these words and sends the rest again."""
    match block:
        case TextBlock():
            return block.text
        case ThinkingBlock():
            return ""
        case MediaBlock(type="image"):
            raise InvalidRequestError(
                f"{path}.image: Could not process image: model '{model}' does not support image input"
            )
        case MediaBlock():
            raise InvalidRequestError(
                f"{path}.document: Could not process document: model '{model}' does not support PDF input"
            )
        case _:
            assert_never(block)
