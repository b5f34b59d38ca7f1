"""Store answers as generated, so that a returning conversation renders to the same tokens.

Clients send answers back altered: keys sorted, defaults added, numbers for their texts. Such a turn
renders to other tokens than were generated, and the prefix cache would end before it. An answer is
found again by what clients must return unchanged: a tool use's id, a thought's signature, or the
text. Clients of other APIs return a thought without its signature, or drop it.
"""

import re
import secrets
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
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

# Beyond this the least recently used are removed: about 16 MB of tokens, plus the content.
MAX_TOKENS = 4_000_000
# Claude Code returns this key in place of an input that was cut off.
_UNPARSED = "__unparsedToolInput"


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    opening: str  # end of the answer's prompt, with which the template begins an answer
    tokens: Sequence[int]
    content: tuple[AnswerContent, ...]  # as sent to the client


class GeneratedAnswers:
    """Owns the stored answers. Rendering threads read while the event loop adds, under one lock."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        # Gets each answer that is not from the disk; it must not block.
        self.on_added: Callable[[GeneratedAnswer], object] | None = None
        self._max_tokens = max_tokens
        # Each with its number and its key by its thought, if it has one.
        self._entries: OrderedDict[str, tuple[int, GeneratedAnswer, str | None]] = OrderedDict()
        # Keys by thoughts, for clients that return no signature.
        self._keys: dict[str, str] = {}
        self._tokens = 0
        self._count = 0
        self._lock = threading.Lock()
        # Placeholders represent answers while the prompt is text. Random, so that no client can
        # send one.
        self._prefix = f"\ufdd2{secrets.token_hex(8)}:"
        self.placeholder_pattern = re.compile(
            rf"(?P<turn>{self._prefix}\w+)(?:\.(?P<call>\d+))?\ufdd2"
        )

    def add(self, answer: GeneratedAnswer, *, is_stored: bool = False) -> None:
        """Store an answer; it replaces an earlier one that clients could not tell from it.

        is_stored: it was read from the disk.
        """
        key, thought = _keys_of_content(answer.content)
        packed = GeneratedAnswer(answer.opening, array("I", answer.tokens), answer.content)
        if key is None or len(packed.tokens) > self._max_tokens:
            return
        with self._lock:
            number, earlier, _ = self._entries.get(key, (0, None, None))
            self._remove(key)
            if packed != earlier:  # a repeated answer keeps its number, and so its placeholder
                self._count += 1
                number = self._count
            self._entries[key] = (number, packed, thought)
            if thought:
                self._keys[thought] = key
            self._tokens += len(packed.tokens)
            while self._tokens > self._max_tokens:
                self._remove(next(iter(self._entries)))
        if self.on_added and not is_stored:
            self.on_added(answer)

    def entries(self) -> list[GeneratedAnswer]:
        """Return all answers, the least recently used first."""
        with self._lock:
            return [answer for _, answer, _ in self._entries.values()]

    def retrieve(self, turn: ChatTurn) -> tuple[str, GeneratedAnswer] | None:
        """Return the placeholder and the stored answer of an assistant's turn, and mark it as used.

        None if no stored answer has the same content.
        """
        blocks = [block for block in turn.blocks if _is_compared(block)]
        key = _key_of_blocks(blocks)
        if key is None:
            return None
        with self._lock:
            key = self._keys.get(key, key)
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
        number, answer, _ = found
        return (
            (f"{self._prefix}{number}\ufdd2", answer) if _matches(blocks, answer.content) else None
        )

    def text_placeholder(self, number: int) -> str:
        """Return the placeholder of a turn that is not a stored answer."""
        return f"{self._prefix}t{number}\ufdd2"

    def _remove(self, key: str) -> None:
        if removed := self._entries.pop(key, None):
            _, answer, thought = removed
            self._tokens -= len(answer.tokens)
            if thought and self._keys.get(thought) == key:
                del self._keys[thought]


def _is_compared(block: ContentBlock) -> bool:
    return isinstance(block, ThinkingBlock) or not is_silent(block)


def _keys_of_content(content: Sequence[AnswerContent]) -> tuple[str | None, str | None]:
    """Return the key of an answer, and the one under which it is found without a signature."""
    uses = [block.id for block in content if isinstance(block, ToolUseContent)]
    thoughts = [block for block in content if isinstance(block, ThinkingContent)]
    texts = [block.text.strip() for block in content if isinstance(block, TextContent)]
    thought = next((block.thinking for block in thoughts if block.thinking), None)
    return (
        _key(uses, [block.signature for block in thoughts], texts),
        thought and f"thought {_thought_key(thought)}",
    )


def _key_of_blocks(blocks: Sequence[ContentBlock]) -> str | None:
    uses = [block.id for block in blocks if isinstance(block, ToolUseBlock)]
    thoughts = [
        block.signature or _thought_key(block.thinking)
        for block in blocks
        if isinstance(block, ThinkingBlock)
    ]
    texts = [block.text.strip() for block in blocks if isinstance(block, TextBlock)]
    return _key(uses, thoughts, texts)


def _key(uses: Sequence[str], thoughts: Sequence[str], texts: Sequence[str]) -> str | None:
    if uses:
        return f"use {uses[0]}"
    if thoughts:
        return f"thought {thoughts[0]}"
    return f"text {''.join(texts)}" if any(texts) else None


def _thought_key(thought: str) -> str:
    return blake2b(thought.strip().encode(errors="replace"), digest_size=16).hexdigest()


def _matches(blocks: Sequence[ContentBlock], content: Sequence[AnswerContent]) -> bool:
    if not any(isinstance(block, ThinkingBlock) for block in blocks):
        content = [block for block in content if not isinstance(block, ThinkingContent)]
    return len(blocks) == len(content) and all(map(_is_same, blocks, content))


def _is_same(block: ContentBlock, content: AnswerContent) -> bool:
    match block, content:
        case TextBlock(text=text), TextContent(text=other):
            return text.strip() == other.strip()
        case ThinkingBlock(signature=""), ThinkingContent():
            return block.thinking.strip() == content.thinking.strip()
        case ThinkingBlock(signature=signature), ThinkingContent(signature=other):
            return signature == other
        case ToolUseBlock(), ToolUseContent():
            is_same_call = (block.id, block.name) == (content.id, content.name)
            return is_same_call and (
                _UNPARSED in block.input or _is_equivalent(content.input, block.input)
            )
        case _:
            return False


def _is_equivalent(generated: object, returned: object) -> bool:
    """Return whether a client may have turned `generated` into `returned`.

    Clients reorder and add keys, and exchange numbers and their texts.
    """
    match generated, returned:
        case Mapping(), Mapping():
            ours = cast("Mapping[str, object]", generated)
            theirs = cast("Mapping[str, object]", returned)
            return all(key in theirs and _is_equivalent(ours[key], theirs[key]) for key in ours)
        case list(), list():
            items = cast("list[object]", generated)
            others = cast("list[object]", returned)
            return len(items) == len(others) and all(map(_is_equivalent, items, others))
        case _:
            return generated == returned or str(generated).lower() == str(returned).lower()
