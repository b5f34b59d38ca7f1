"""Arrange a conversation as the messages of a chat template, and the prefill of its answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pensieve.api.messages.content_blocks import TextBlock
from pensieve.api.messages.request import Conversation
from pensieve.dialects.families.plain import tools_text
from pensieve.dialects.format_calls import format_minified
from pensieve.dialects.tool_presentation import text_escaping_note
from pensieve.errors import InvalidRequestError
from pensieve.prompt.constraints import output_schema
from pensieve.prompt.conversation.tools import ToolSet
from pensieve.prompt.conversation.turns import ChatTurn, chat_turns, is_silent, merged, trimmed
from pensieve.prompt.template.chat_messages import ChatWriter, Message
from pensieve.prompt.template.probe import SystemTurns


@dataclass(frozen=True, slots=True)
class Layout:
    turns: Sequence[ChatTurn]  # all
    messages: Sequence[Message]  # what the template writes: all turns but the prefill's
    ends: Sequence[int]  # for each turn, the number of messages up to its end
    prefill: str  # text of a final assistant turn, which the answer continues


def lay_out(
    conversation: Conversation, tool_set: ToolSet, writer: ChatWriter, abilities: SystemTurns
) -> Layout:
    """Return the layout for one model. Raises `InvalidRequestError` if there is no user turn."""
    tools = (
        [tools_text(tool_set.listed)] if writer.dialect.tools == "text" and tool_set.listed else []
    )
    instructions = [*_output_instructions(conversation), *_call_instructions(tool_set, writer)]
    turns = fold_system_turns(chat_turns(conversation, tools, instructions), abilities)
    prefill = ""
    rendered = turns
    if turns and turns[-1].role == "assistant":
        rendered = turns[:-1]
        turns = [*rendered, trimmed(turns[-1])]
        prefill = writer.text(turns[-1])
    messages_by_turn = [writer.messages(turn) for turn in rendered]
    messages = [message for per_turn in messages_by_turn for message in per_turn]
    if not messages:
        raise InvalidRequestError('messages: first message must use the "user" role')
    return Layout(turns, messages, list(accumulate(map(len, messages_by_turn))), prefill)


def _output_instructions(conversation: Conversation) -> Iterator[str]:
    """Yield what follows the client's own text in the system part."""
    if (schema := output_schema(conversation)) is not None:
        yield (
            "Answer with JSON that obeys this JSON Schema, and with nothing else:\n"
            f"{format_minified(schema)}"
        )


def _call_instructions(tool_set: ToolSet, writer: ChatWriter) -> Iterator[str]:
    if tool_set.listed and (instructions := text_escaping_note(writer.dialect.calls.parameters)):
        yield instructions


def fold_system_turns(turns: list[ChatTurn], abilities: SystemTurns) -> list[ChatTurn]:
    """Turn system turns that the template does not write into user text at the same position."""
    return merged(
        turn if turn.role != "system" or _is_supported(index, abilities) else _as_user(index, turn)
        for index, turn in enumerate(turns)
    )


def _is_supported(index: int, abilities: SystemTurns) -> bool:
    return abilities.first if index == 0 else abilities.between


def _as_user(index: int, turn: ChatTurn) -> ChatTurn:
    if index == 0:
        return ChatTurn("user", turn.messages)
    opening = TextBlock(type="text", text="<system-reminder>")
    closing = TextBlock(type="text", text="</system-reminder>")
    messages = (message for message in turn.messages if not all(map(is_silent, message)))
    return ChatTurn("user", tuple((opening, *message, closing) for message in messages))
