"""The seam between turns of blocks and a chat template: the messages that the template is given.

Blocks of one message stand on lines of their own, except the texts of the assistant, which were written in one go; messages of
one role are parted by an empty line. Whatever a client sent is neutralized, so no field can hold a control token; the marks
around the model's own calls are not.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import cast

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Turn
from pensieve.api.messages.signatures import thought_in
from pensieve.dialects.dialect import Dialect, ToolCall, ToolSpec
from pensieve.dialects.format_calls import Neutralize, format_calls, template_arguments
from pensieve.prompt.conversation.block_text import ToolNames, block_text, result_text
from pensieve.prompt.conversation.call_ids import CallIds
from pensieve.prompt.conversation.turns import ChatTurn, is_silent
from pensieve.prompt.template.call_turns import CallTurns
from pensieve.prompt.template.placeholders import call_placeholder

Message = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ChatWriter:
    """Writes turns in one dialect. neutralize: marks a client's text. recall: what stands for an assistant's turn whose words
    as generated are kept, else None. stand_in: the same for a turn with calls that is to be this text. takes_text_after_results:
    where a template does not, that text is part of the last result.
    """

    dialect: Dialect
    known: ToolNames
    neutralize: Neutralize
    recall: Callable[[ChatTurn], str | None]
    call_ids: CallIds
    stand_in: Callable[[ChatTurn, str], str | None]
    call_turns: CallTurns = field(default_factory=CallTurns)
    takes_text_after_results: bool = True
    takes_results_after_text: bool = True
    _recalled: set[str] = field(default_factory=set[str], init=False)  # ids of uses

    def messages(self, turn: ChatTurn) -> list[Message]:
        """The messages for one turn: one, unless tool results have messages of their own."""
        if turn.role == "assistant":
            return self._said(turn)
        if turn.role == "user" and self.dialect.tools == "template":
            return list(self._asked(turn))
        return [{"role": turn.role, "content": self.text(turn)}]

    # What the assistant said.

    def _said(self, turn: ChatTurn) -> list[Message]:
        uses = [block for block in turn.blocks if isinstance(block, ToolUseBlock)]
        if not uses or self.dialect.writer == "text":
            return [self._as_text(turn, uses)]
        if (kept := self.recall(turn)) is not None:
            self._recalled.update(use.id for use in uses)
            return [self._signed(uses, kept)]
        text = self.text(turn)
        if self._is_apart(uses[0]):
            return [self._thought_before(turn, text)] if text else []
        if not text or self.call_turns.takes_text:
            return [self._calling(uses, self._thought_before(turn, text))]
        if (sign := self.stand_in(turn, self._whole_text(turn))) is not None:
            return [{**self._thought_before(turn, ""), **self._signed(uses, sign)}]
        before = self._thought_before(turn, text)
        return [before, self._calling(uses, {"role": "assistant", "content": ""})]

    def _as_text(self, turn: ChatTurn, uses: Sequence[ToolUseBlock]) -> Message:
        if (kept := self.recall(turn)) is not None:
            return {"role": "assistant", "content": kept}
        text = self.text(turn)
        self.call_ids.read(uses, text)
        return self._thought_before(turn, text)

    def _thought_before(self, turn: ChatTurn, text: str) -> Message:
        """A text, and in a field of its own what was thought before."""
        message = {"role": "assistant", "content": text}
        if (form := self.dialect.thinking) is not None and (thought := _thought(turn)):
            message[form.message_field] = self.neutralize(thought)
        return message

    def _calling(self, uses: Iterable[ToolUseBlock], message: Message) -> Message:
        return {**message, "tool_calls": [self._tool_call(use) for use in uses]}

    def _signed(self, uses: Iterable[ToolUseBlock], sign: str) -> Message:
        """The calls of a turn that is not the template's to write."""
        calls: list[Message] = [
            {
                "id": self._id(use.id),
                "type": "function",
                "function": {"name": call_placeholder(sign, at), "arguments": {}},
            }
            for at, use in enumerate(uses)
        ]
        return {"role": "assistant", "content": "", "tool_calls": calls}

    def _is_apart(self, use: ToolUseBlock) -> bool:
        """Whether a call is written right before its result, and not with the others of its turn."""
        if use.id in self._recalled:
            return False
        if self.dialect.calls_with_results:
            return True
        return not self.call_turns.takes_several and use.id in self.known.parallel

    def _tool_call(self, use: ToolUseBlock) -> Mapping[str, object]:
        slots = self.known.slots.get(use.name)
        arguments = template_arguments(self.dialect.calls.parameters, use.input, slots)
        function = {"name": use.name, "arguments": arguments}
        return {
            "id": self._id(use.id),
            "type": "function",
            "function": neutral(function, self.neutralize),
        }

    # What the user said, and what tools answered.

    def _asked(self, turn: ChatTurn) -> Iterator[Message]:
        results = [block for block in turn.blocks if isinstance(block, ToolResultBlock)]
        if results and not self.takes_text_after_results:
            said = ((block for block in one if not _is_result(block)) for one in turn.messages)
            rest = ChatTurn("user", tuple(map(tuple, said)))
            for block in results[:-1]:
                yield from self._resulted(block)
            yield from self._resulted(results[-1], self.text(rest))
            return
        placed = [(at, block) for at, one in enumerate(turn.messages) for block in one]
        if not self.takes_results_after_text:
            placed.sort(key=lambda pair: not _is_result(pair[1]))
        for is_result, some in groupby(placed, key=lambda pair: _is_result(pair[1])):
            if is_result:
                for _, block in some:
                    yield from self._resulted(cast("ToolResultBlock", block))
                continue
            said = (tuple(block for _, block in one) for _, one in groupby(some, key=itemgetter(0)))
            if text := self.text(ChatTurn("user", tuple(said))):
                yield {"role": "user", "content": text}

    def _resulted(self, block: ToolResultBlock, more: str = "") -> Iterator[Message]:
        """A result, and what is said after it where that has no turn of its own."""
        yield from self._called(block)
        result = self._result(block)
        yield {**result, "content": f"{result['content']}\n\n{more}"} if more else result

    def _called(self, block: ToolResultBlock) -> Iterator[Message]:
        """The call that a result answers, where they must stand together."""
        use = self.known.uses.get(block.tool_use_id)
        if use is not None and self.dialect.writer == "template" and self._is_apart(use):
            yield self._calling([use], {"role": "assistant", "content": ""})

    def _result(self, block: ToolResultBlock) -> Message:
        return {
            "role": "tool",
            "tool_call_id": self._id(block.tool_use_id),
            "name": self.neutralize(self.known.tool_name(block.tool_use_id)),
            "content": self.neutralize(result_text(block, self.known)),
        }

    def _id(self, name: str) -> str:
        """An id as it is in the call, or as the template wants it."""
        if (written := self.call_ids.get(name)) is not None:
            return self.neutralize(written)
        if self.dialect.id_letters is None:
            return self.neutralize(name)
        return hashlib.sha256(name.encode()).hexdigest()[: self.dialect.id_letters]

    # Text.

    def text(self, turn: ChatTurn) -> str:
        """All that a turn says, as one text."""
        return self._text(turn, writes_calls=self.dialect.writer == "text")

    def _whole_text(self, turn: ChatTurn) -> str:
        """An assistant's turn with its calls, whoever writes them otherwise."""
        return self._text(turn, writes_calls=True)

    def _text(self, turn: ChatTurn, *, writes_calls: bool) -> str:
        writes_calls = writes_calls and turn.role == "assistant"
        texts = (
            self._message_text(
                message, writes_calls=writes_calls, is_one_go=turn.role == "assistant"
            )
            for message in turn.messages
        )
        return "\n\n".join(text for text in texts if text)

    def _message_text(
        self, message: Iterable[ContentBlock], *, writes_calls: bool, is_one_go: bool
    ) -> str:
        pieces: list[str] = []
        shown = (block for block in message if not is_silent(block))
        for kind, blocks in groupby(shown, key=_kind):
            match kind:
                case "use" if writes_calls:
                    uses = cast("Iterator[ToolUseBlock]", blocks)
                    calls = [ToolCall(use.name, use.input, self._id(use.id)) for use in uses]
                    pieces.append(
                        format_calls(self.dialect.calls, calls, self.neutralize, self.known.slots)
                    )
                case "use":
                    pass
                case "text" if is_one_go:
                    pieces.append(self.neutralize("".join(self._words(blocks))))
                case _:
                    pieces.append(self.neutralize("\n".join(self._words(blocks))))
        return "\n".join(pieces)

    def _words(self, blocks: Iterable[ContentBlock]) -> Iterator[str]:
        return (block_text(block, self.known) for block in blocks)


def template_tool(tool: ToolSpec, neutralize: Neutralize) -> Mapping[str, object]:
    """A tool as chat templates take it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return {"type": "function", "function": neutral(function, neutralize)}


def neutral(value: object, neutralize: Neutralize) -> object:
    """A JSON value with every text and key in it neutralized."""
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
    """Each tool use by its id."""
    blocks = (block for turn in turns for block in turn.content)
    return {block.id: block for block in blocks if isinstance(block, ToolUseBlock)}


def parallel_uses(turns: Iterable[Turn]) -> frozenset[str]:
    """The ids of tool uses that are not the only one of their turn."""
    found: set[str] = set()
    for turn in turns:
        ids = [block.id for block in turn.content if isinstance(block, ToolUseBlock)]
        found.update(ids if len(ids) > 1 else ())
    return frozenset(found)


def _thought(turn: ChatTurn) -> str:
    """What the assistant thought in a turn, as far as the client or the signature tells it."""
    thoughts = (block for block in turn.blocks if isinstance(block, ThinkingBlock))
    texts = (block.thinking or thought_in(block.signature) or "" for block in thoughts)
    return "\n\n".join(text for text in texts if text)


def _is_result(block: ContentBlock) -> bool:
    return isinstance(block, ToolResultBlock)


def _kind(block: ContentBlock) -> str:
    if isinstance(block, TextBlock):
        return "text"
    return "use" if isinstance(block, ToolUseBlock) else "other"
