"""Convert a conversation to the messages that a chat template gets, and the prefill of its answer.

Blocks of one message are joined by line breaks, except the assistant's texts, which were written in
one go; messages of one role by an empty line. All client text is neutralized, so no field contains
a control token; the marks around the model's own calls are not.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from operator import itemgetter
from typing import cast

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Conversation, Turn
from pensieve.api.messages.signatures import thought_in
from pensieve.dialects.dialect import Dialect, ToolCall, ToolSpec
from pensieve.dialects.families.plain import tools_text
from pensieve.dialects.format_calls import (
    Neutralize,
    format_calls,
    format_minified,
    template_arguments,
)
from pensieve.dialects.tool_presentation import text_escaping_note
from pensieve.errors import InvalidRequestError
from pensieve.prompt.constraints import json_schema_of
from pensieve.prompt.conversation.block_text import ToolNames, block_text, result_text
from pensieve.prompt.conversation.pictures import joined
from pensieve.prompt.conversation.tools import ToolSet
from pensieve.prompt.conversation.turns import ChatTurn, chat_turns, is_silent, merged, trimmed
from pensieve.prompt.template.call_turns import CallTurns
from pensieve.prompt.template.placeholders import call_placeholder
from pensieve.prompt.template.probe import SystemTurns
from pensieve.prompt.template.renderer import CallIds

Message = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ChatWriter:
    """Writes turns in one dialect."""

    dialect: Dialect
    tool_names: ToolNames
    neutralize: Neutralize  # marks client text
    # The placeholder of a turn that is a stored answer, else None.
    recall: Callable[[ChatTurn], str | None]
    call_ids: CallIds
    # The placeholder of a turn with calls that this text is to replace, else None.
    substitute: Callable[[ChatTurn, str], str | None]
    call_turns: CallTurns = field(default_factory=CallTurns)
    takes_text_after_results: bool = True  # else the text becomes part of the last result
    takes_results_after_text: bool = True
    _recalled: set[str] = field(default_factory=set[str], init=False)  # ids of uses

    def messages(self, turn: ChatTurn) -> list[Message]:
        """Return one message, or more if tool results have messages of their own."""
        if turn.role == "assistant":
            return self._assistant_messages(turn)
        if turn.role == "user" and self.dialect.tools == "template":
            return list(self._user_messages(turn))
        return [{"role": turn.role, "content": self.text(turn)}]

    # Turns of the assistant.

    def _assistant_messages(self, turn: ChatTurn) -> list[Message]:
        uses = [block for block in turn.blocks if isinstance(block, ToolUseBlock)]
        if not uses or self.dialect.writer == "text":
            return [self._as_text(turn, uses)]
        if (placeholder := self.recall(turn)) is not None:
            self._recalled.update(use.id for use in uses)
            return [self._placeholder_calls(uses, placeholder)]
        text = self.text(turn)
        if self._is_before_result(uses[0]):
            return [self._thought_before(turn, text)] if text else []
        if not text or self.call_turns.takes_text:
            return [self._with_calls(uses, self._thought_before(turn, text))]
        if (placeholder := self.substitute(turn, self._whole_text(turn))) is not None:
            return [
                {**self._thought_before(turn, ""), **self._placeholder_calls(uses, placeholder)}
            ]
        before = self._thought_before(turn, text)
        return [before, self._with_calls(uses, {"role": "assistant", "content": ""})]

    def _as_text(self, turn: ChatTurn, uses: Sequence[ToolUseBlock]) -> Message:
        if (placeholder := self.recall(turn)) is not None:
            return {"role": "assistant", "content": placeholder}
        text = self.text(turn)
        self.call_ids.read(uses, text)
        return self._thought_before(turn, text)

    def _thought_before(self, turn: ChatTurn, text: str) -> Message:
        """Return a message with the turn's thought in a separate field."""
        message = {"role": "assistant", "content": text}
        if (form := self.dialect.thinking) is not None and (thought := _thought(turn)):
            message[form.message_field] = self.neutralize(thought)
        return message

    def _with_calls(self, uses: Iterable[ToolUseBlock], message: Message) -> Message:
        return {**message, "tool_calls": [self._tool_call(use) for use in uses]}

    def _placeholder_calls(self, uses: Iterable[ToolUseBlock], placeholder: str) -> Message:
        """Return calls that the template only frames: their names are placeholders."""
        calls: list[Message] = [
            {
                "id": self._id(use.id),
                "type": "function",
                "function": {"name": call_placeholder(placeholder, at), "arguments": {}},
            }
            for at, use in enumerate(uses)
        ]
        return {"role": "assistant", "content": "", "tool_calls": calls}

    def _is_before_result(self, use: ToolUseBlock) -> bool:
        """Return whether a call is written right before its result, apart from other calls."""
        if use.id in self._recalled:
            return False
        if self.dialect.calls_with_results:
            return True
        return not self.call_turns.takes_several and use.id in self.tool_names.parallel

    def _tool_call(self, use: ToolUseBlock) -> Mapping[str, object]:
        slots = self.tool_names.slots.get(use.name)
        arguments = template_arguments(self.dialect.calls.parameters, use.input, slots)
        function = {"name": use.name, "arguments": arguments}
        return {
            "id": self._id(use.id),
            "type": "function",
            "function": neutral(function, self.neutralize),
        }

    # Turns of the user, and tool results.

    def _user_messages(self, turn: ChatTurn) -> Iterator[Message]:
        results = [block for block in turn.blocks if isinstance(block, ToolResultBlock)]
        if results and not self.takes_text_after_results:
            messages = ((block for block in one if not _is_result(block)) for one in turn.messages)
            rest = ChatTurn("user", tuple(map(tuple, messages)))
            for block in results[:-1]:
                yield from self._result_messages(block)
            yield from self._result_messages(results[-1], self.text(rest))
            return
        placed = [(at, block) for at, one in enumerate(turn.messages) for block in one]
        if not self.takes_results_after_text:
            placed.sort(key=lambda pair: not _is_result(pair[1]))
        for is_result, run in groupby(placed, key=lambda pair: _is_result(pair[1])):
            if is_result:
                for _, block in run:
                    yield from self._result_messages(cast("ToolResultBlock", block))
                continue
            messages = (
                tuple(block for _, block in one) for _, one in groupby(run, key=itemgetter(0))
            )
            if text := self.text(ChatTurn("user", tuple(messages))):
                yield {"role": "user", "content": text}

    def _result_messages(self, block: ToolResultBlock, suffix: str = "") -> Iterator[Message]:
        """Yield a result, and the text after it if that cannot be a turn of its own."""
        yield from self._call_messages(block)
        result = self._result(block)
        yield ({**result, "content": f"{result['content']}\n\n{suffix}"} if suffix else result)

    def _call_messages(self, block: ToolResultBlock) -> Iterator[Message]:
        """Yield the call of a result if the two must be adjacent."""
        use = self.tool_names.uses.get(block.tool_use_id)
        if use is not None and self.dialect.writer == "template" and self._is_before_result(use):
            yield self._with_calls([use], {"role": "assistant", "content": ""})

    def _result(self, block: ToolResultBlock) -> Message:
        return {
            "role": "tool",
            "tool_call_id": self._id(block.tool_use_id),
            "name": self.neutralize(self.tool_names.tool_name(block.tool_use_id)),
            "content": self.neutralize(result_text(block, self.tool_names)),
        }

    def _id(self, name: str) -> str:
        """Return an id as the call has it, or as the template requires it."""
        if (call_id := self.call_ids.get(name)) is not None:
            return self.neutralize(call_id)
        if self.dialect.id_chars is None:
            return self.neutralize(name)
        return hashlib.sha256(name.encode()).hexdigest()[: self.dialect.id_chars]

    # Text.

    def text(self, turn: ChatTurn) -> str:
        return self._text(turn, writes_calls=self.dialect.writer == "text")

    def _whole_text(self, turn: ChatTurn) -> str:
        """Return an assistant's turn with its calls, even if the template normally writes them."""
        return self._text(turn, writes_calls=True)

    def _text(self, turn: ChatTurn, *, writes_calls: bool) -> str:
        writes_calls = writes_calls and turn.role == "assistant"
        texts = (
            self._message_text(
                message, writes_calls=writes_calls, is_contiguous=turn.role == "assistant"
            )
            for message in turn.messages
        )
        return "\n\n".join(text for text in texts if text)

    def _message_text(
        self, message: Iterable[ContentBlock], *, writes_calls: bool, is_contiguous: bool
    ) -> str:
        pieces: list[str] = []
        has_picture = False
        visible = (block for block in message if not is_silent(block))
        for kind, blocks in groupby(visible, key=_kind):
            match kind:
                case "use" if writes_calls:
                    uses = cast("Iterator[ToolUseBlock]", blocks)
                    calls = [ToolCall(use.name, use.input, self._id(use.id)) for use in uses]
                    pieces.append(
                        format_calls(
                            self.dialect.calls, calls, self.neutralize, self.tool_names.slots
                        )
                    )
                case "use":
                    pass
                case "text":
                    texts = (block.text for block in cast("Iterator[TextBlock]", blocks))
                    pieces.append(self.neutralize(("" if is_contiguous else "\n").join(texts)))
                case "picture":
                    has_picture = True
                    pieces += (block_text(block, self.tool_names) for block in blocks)
                case _:
                    texts = (block_text(block, self.tool_names) for block in blocks)
                    pieces.append(self.neutralize("\n".join(texts)))
        return joined(pieces) if has_picture else "\n".join(pieces)


# Whole conversations.


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
        raise InvalidRequestError('messages: a message with the "user" role is required')
    return Layout(turns, messages, list(accumulate(map(len, messages_by_turn))), prefill)


def _output_instructions(conversation: Conversation) -> Iterator[str]:
    """Yield what follows the client's own text in the system part."""
    if (output_format := conversation.output_schema) is not None:
        yield (
            "Answer with JSON that obeys this JSON Schema, and with nothing else:\n"
            f"{format_minified(json_schema_of(output_format))}"
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


# Values of messages.


def template_tool(tool: ToolSpec, neutralize: Neutralize) -> Mapping[str, object]:
    """Return a tool in the form that chat templates expect."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return {"type": "function", "function": neutral(function, neutralize)}


def neutral(value: object, neutralize: Neutralize) -> object:
    """Neutralize every text and key of a JSON value."""
    match value:
        case str():
            return neutralize(value)
        case Mapping():
            fields = cast("Mapping[str, object]", value)
            return {neutralize(key): neutral(item, neutralize) for key, item in fields.items()}
        case list() | tuple():
            return [neutral(item, neutralize) for item in cast("Sequence[object]", value)]
        case _:
            return value


def tool_uses(turns: Iterable[Turn]) -> Mapping[str, ToolUseBlock]:
    """Return each tool use by its id."""
    blocks = (block for turn in turns for block in turn.content)
    return {block.id: block for block in blocks if isinstance(block, ToolUseBlock)}


def parallel_uses(turns: Iterable[Turn]) -> frozenset[str]:
    """Return the ids of tool uses in turns with several."""
    found: set[str] = set()
    for turn in turns:
        ids = [block.id for block in turn.content if isinstance(block, ToolUseBlock)]
        found.update(ids if len(ids) > 1 else ())
    return frozenset(found)


def _thought(turn: ChatTurn) -> str:
    """Return a turn's thought, from the client or from the signature."""
    thoughts = (block for block in turn.blocks if isinstance(block, ThinkingBlock))
    texts = (block.thinking or thought_in(block.signature) or "" for block in thoughts)
    return "\n\n".join(text for text in texts if text)


def _is_result(block: ContentBlock) -> bool:
    return isinstance(block, ToolResultBlock)


def _kind(block: ContentBlock) -> str:
    if isinstance(block, TextBlock):
        return "text"
    if isinstance(block, ImageBlock):
        return "picture"
    return "use" if isinstance(block, ToolUseBlock) else "other"
