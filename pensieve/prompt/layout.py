"""A conversation as what a chat template is given: its messages, and the beginning of the answer where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

from pensieve.api.blocks import TextBlock
from pensieve.api.request import Conversation
from pensieve.errors import InvalidRequestError
from pensieve.prompt.abilities import SystemTurns
from pensieve.prompt.template import ChatTokenizer
from pensieve.prompt.turns import ChatTurn, chat_turns, is_silent, merged, trimmed
from pensieve.prompt.words import Message, template_messages


@dataclass(frozen=True, slots=True)
class Layout:
    """turns: all of them. messages: what the template writes; without a final assistant turn, whose text is `prefill`."""

    turns: Sequence[ChatTurn]
    messages: Sequence[Message]
    prefill: str


def lay_out(conversation: Conversation, tokenizer: ChatTokenizer, abilities: SystemTurns) -> Layout:
    """The layout for one model. Raises `InvalidRequestError` where only the assistant speaks."""
    turns = fold_system_turns(chat_turns(conversation), abilities)
    is_continued = bool(turns) and turns[-1].role == "assistant"
    if is_continued:
        turns = [*turns[:-1], trimmed(turns[-1])]
    messages = template_messages(turns, tokenizer.neutralize)
    prefill = str(messages.pop()["content"]) if is_continued else ""
    if not messages:
        raise InvalidRequestError('messages: first message must use the "user" role')
    return Layout(turns, messages, prefill)


def fold_system_turns(turns: list[ChatTurn], abilities: SystemTurns) -> list[ChatTurn]:
    """Turns that the template writes whole: system turns it would not take become user text in their place."""
    return merged(
        turn if turn.role != "system" or _is_taken(index, abilities) else _as_user(index, turn)
        for index, turn in enumerate(turns)
    )


def _is_taken(index: int, abilities: SystemTurns) -> bool:
    return abilities.first if index == 0 else abilities.between


def _as_user(index: int, turn: ChatTurn) -> ChatTurn:
    if index == 0:
        return ChatTurn("user", turn.messages)
    opening = TextBlock(type="text", text="<system-reminder>")
    closing = TextBlock(type="text", text="</system-reminder>")
    said = (message for message in turn.messages if not all(map(is_silent, message)))
    return ChatTurn("user", tuple((opening, *message, closing) for message in said))
