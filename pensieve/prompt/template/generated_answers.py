"""The words of answers as they were generated, so that a conversation that comes back renders to the very tokens.

Clients send answers back reordered: keys sorted, defaults added, numbers for their texts. Rendered anew, such a turn is other tokens
than were generated, and the prefix cache ends before it. So the tokens are kept for a while, found again by what the
client must send back as it got it: a tool use's id, a thought's signature, the text itself.
"""

import re
import secrets
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from pensieve.api.messages.message import (
    AnswerContent,
    TextContent,
    ThinkingContent,
    ToolUseContent,
)
from pensieve.prompt.conversation.turns import ChatTurn, is_silent

# Of the least recently used, the first go: about 16 MB of tokens, and the words beside them.
MAX_TOKENS = 4_000_000
# In the place of input that was cut off Claude Code sends this back, with what came of it.
_UNPARSED = "__unparsedToolInput"


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """An answer as generated. opening: the end of its prompt, with which the chat template begins an answer.

    content: what the client was told.
    """

    opening: str
    tokens: Sequence[int]
    content: tuple[AnswerContent, ...]


class GeneratedAnswers:
    """Owns what is kept. Crossing: threads that render look it up while the event loop adds to it, under one lock."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._kept: OrderedDict[str, tuple[int, GeneratedAnswer]] = OrderedDict()
        self._tokens = 0
        self._count = 0
        self._lock = threading.Lock()
        # What stands for an answer while its prompt is text. No client can guess it.
        self._sign = f"\ufdd2{secrets.token_hex(8)}:"
        self.signs = re.compile(rf"(?P<turn>{self._sign}\w+)(?:\.(?P<call>\d+))?\ufdd2")

    def keep(self, spoken: GeneratedAnswer) -> None:
        """Remember an answer, in the place of an earlier one that a client could not tell from it."""
        key = _key_of_content(spoken.content)
        packed = GeneratedAnswer(spoken.opening, array("I", spoken.tokens), spoken.content)
        if key is None or len(packed.tokens) > self._max_tokens:
            return
        with self._lock:
            number, earlier = self._kept.get(key, (0, None))
            self._forget(key)
            if packed != earlier:  # the same words once more change no prompt that has them already
                self._count += 1
                number = self._count
            self._kept[key] = (number, packed)
            self._tokens += len(packed.tokens)
            while self._tokens > self._max_tokens:
                self._forget(next(iter(self._kept)))

    def kept(self) -> list[GeneratedAnswer]:
        """All that is kept, the least recently used first."""
        with self._lock:
            return [spoken for _, spoken in self._kept.values()]

    def find(self, turn: ChatTurn) -> tuple[str, GeneratedAnswer] | None:
        """The answer that an assistant's turn is, and its sign; None where none is kept that says the same."""
        blocks = [block for block in turn.blocks if _is_said(block)]
        key = _key_of_blocks(blocks)
        if key is None:
            return None
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
        number, spoken = found
        return (f"{self._sign}{number}\ufdd2", spoken) if _says(blocks, spoken.content) else None

    def sign_of_text(self, number: int) -> str:
        """Return what represents a turn that is rendered, not kept: unlike any kept answer's sign."""
        return f"{self._sign}t{number}\ufdd2"

    def _forget(self, key: str) -> None:
        if gone := self._kept.pop(key, None):
            self._tokens -= len(gone[1].tokens)


def _is_said(block: ContentBlock) -> bool:
    return isinstance(block, ThinkingBlock) or not is_silent(block)


def _key_of_content(content: Sequence[AnswerContent]) -> str | None:
    uses = [block.id for block in content if isinstance(block, ToolUseContent)]
    thoughts = [block.signature for block in content if isinstance(block, ThinkingContent)]
    texts = [block.text.strip() for block in content if isinstance(block, TextContent)]
    return _key(uses, thoughts, texts)


def _key_of_blocks(blocks: Sequence[ContentBlock]) -> str | None:
    uses = [block.id for block in blocks if isinstance(block, ToolUseBlock)]
    thoughts = [block.signature for block in blocks if isinstance(block, ThinkingBlock)]
    texts = [block.text.strip() for block in blocks if isinstance(block, TextBlock)]
    return _key(uses, thoughts, texts)


def _key(uses: Sequence[str], thoughts: Sequence[str], texts: Sequence[str]) -> str | None:
    if uses:
        return f"use {uses[0]}"
    if thoughts:
        return f"thought {thoughts[0]}"
    return f"text {''.join(texts)}" if any(texts) else None


def _says(blocks: Sequence[ContentBlock], content: Sequence[AnswerContent]) -> bool:
    return len(blocks) == len(content) and all(map(_is_same, blocks, content))


def _is_same(block: ContentBlock, said: AnswerContent) -> bool:
    match block, said:
        case TextBlock(text=text), TextContent(text=told):
            return text.strip() == told.strip()
        case ThinkingBlock(signature=signature), ThinkingContent(signature=told):
            return signature == told
        case ToolUseBlock(), ToolUseContent():
            is_same_call = (block.id, block.name) == (said.id, said.name)
            return is_same_call and (_UNPARSED in block.input or _is_alike(said.input, block.input))
        case _:
            return False


def _is_alike(generated: object, returned: object) -> bool:
    """Whether a client may have made one of the other: keys in another order, more of them, numbers and texts for each other."""
    match generated, returned:
        case Mapping(), Mapping():
            ours = cast("Mapping[str, object]", generated)
            theirs = cast("Mapping[str, object]", returned)
            return all(key in theirs and _is_alike(ours[key], theirs[key]) for key in ours)
        case list(), list():
            items = cast("list[object]", generated)
            others = cast("list[object]", returned)
            return len(items) == len(others) and all(map(_is_alike, items, others))
        case _:
            return generated == returned or str(generated).lower() == str(returned).lower()
