"""A conversation as what a chat template is given: its messages, and the beginning of the answer where there is one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pensieve.api.messages.content_blocks import TextBlock
from pensieve.api.messages.request import Conversation
from pensieve.dialects.families.plain import tools_text
from pensieve.dialects.format_calls import format_minified
from pensieve.dialects.tool_presentation import told_texts
from pensieve.errors import InvalidRequestError
from pensieve.prompt.constraints import output_schema
from pensieve.prompt.conversation.tools import ToolSet
from pensieve.prompt.conversation.turns import ChatTurn, chat_turns, is_silent, merged, trimmed
from pensieve.prompt.template.chat_messages import ChatWriter, Message
from pensieve.prompt.template.probe import SystemTurns


@dataclass(frozen=True, slots=True)
class Layout:
    """turns: all of them. messages: what the template writes; without a final assistant turn, whose text is `prefill`.

    ends: for each turn, how many messages there are up to its end.
    """

    turns: Sequence[ChatTurn]
    messages: Sequence[Message]
    ends: Sequence[int]
    prefill: str


def lay_out(
    conversation: Conversation, offer: ToolSet, writer: ChatWriter, abilities: SystemTurns
) -> Layout:
    """The layout for one model. Raises `InvalidRequestError` where only the assistant speaks."""
    tools = [tools_text(offer.shown)] if writer.dialect.tools == "text" and offer.shown else []
    told = [*_told(conversation), *_told_of_calls(offer, writer)]
    turns = fold_system_turns(chat_turns(conversation, tools, told), abilities)
    prefill = ""
    asked = turns
    if turns and turns[-1].role == "assistant":
        asked = turns[:-1]
        turns = [*asked, trimmed(turns[-1])]
        prefill = writer.text(turns[-1])
    written = [writer.messages(turn) for turn in asked]
    messages = [message for ones in written for message in ones]
    if not messages:
        raise InvalidRequestError('messages: first message must use the "user" role')
    return Layout(turns, messages, list(accumulate(map(len, written))), prefill)


def _told(conversation: Conversation) -> Iterator[str]:
    """What the system part says behind the client's own words."""
    if (schema := output_schema(conversation)) is not None:
        yield f"Answer with JSON that obeys this JSON Schema, and with nothing else:\n{format_minified(schema)}"


def _told_of_calls(offer: ToolSet, writer: ChatWriter) -> Iterator[str]:
    if offer.shown and (told := told_texts(writer.dialect.calls.parameters)):
        yield told


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
