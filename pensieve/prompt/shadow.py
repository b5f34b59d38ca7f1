"""Texts that an answer is likely to copy, in the form in which it would write them.

A Read result has line numbers, a file in a Write call is JSON-escaped, a diff has a blank before
each unchanged line: none continues another.
The engine's lookup gets these texts tokenized, next to the prompt; the model never sees them
(engine/speculation/lookup_index.py).
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import cast

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Conversation
from pensieve.dialects.dialect import CallForm
from pensieve.dialects.format_calls import format_json
from pensieve.prompt.chat_tokenizer import ChatTokenizer

# About 30 000 tokens, 3 MB in the index.
MAX_CHARS = 120_000
# Shorter texts save no more than a step.
MIN_CHARS = 64
# Tokenized texts that are kept: a conversation sends the same ones with every turn. 1 MB each at
# most.
_KEPT_TEXTS = 48
# As Claude Code's Read writes them.
_LINE_NUMBER = re.compile(r"^[ \t]*\d+(?:→|\t)", re.MULTILINE)


class ShadowTokens:
    """Tokenizes the texts that an answer may copy, for one model. For any thread."""

    def __init__(self, tokenizer: ChatTokenizer, form: CallForm) -> None:
        def encode(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(tokenizer.neutralize(text)))

        self._form = form
        self._encode = lru_cache(_KEPT_TEXTS)(encode)

    def of(self, conversation: Conversation) -> tuple[tuple[int, ...], ...]:
        """Return them as `Generation.hints`."""
        return tuple(self._encode(text) for text in shadow_texts(conversation, self._form))


def shadow_texts(
    conversation: Conversation, form: CallForm, max_chars: int = MAX_CHARS
) -> tuple[str, ...]:
    """Return tool results and earlier arguments, oldest first; the newest within `max_chars`.

    form: of the model's calls. Texts that the prompt already has in the same form are omitted.
    """
    is_escaped = _escapes_texts(form)
    blocks = [block for turn in conversation.messages for block in turn.content]
    newest_first = chain(
        (text for block in reversed(blocks) for text in _copies(block, is_escaped=is_escaped)),
        # Rarer than the others, so they get what those leave of the limit.
        (in_diff(text) for block in reversed(blocks) for text in _numbered_files(block)),
    )
    long_enough = (text for text in newest_first if len(text) >= MIN_CHARS)
    return tuple(reversed(_within(long_enough, max_chars)))


def without_line_numbers(text: str) -> str:
    """Return the text of a numbered file; any other text unchanged."""
    stripped, numbers = _LINE_NUMBER.subn("", text)
    return stripped if 2 * numbers > len(text.splitlines()) else text


def in_diff(text: str) -> str:
    """Return the text as a unified diff has its unchanged lines."""
    return " " + text.replace("\n", "\n ")


def escaped(text: str) -> str:
    """Return the inside of the text as a JSON string."""
    return format_json(text)[1:-1]


def _escapes_texts(form: CallForm) -> bool:
    return form.parameters is None or form.parameters.quote == '"'


def _copies(block: ContentBlock, *, is_escaped: bool) -> Iterator[str]:
    """Yield the forms of a block's texts that the prompt does not have."""
    match block:
        case ToolResultBlock():
            for text in _result_texts(block):
                yield from _result_copies(text, is_escaped=is_escaped)
        case ToolUseBlock() if is_escaped:
            yield from (text for text in _strings(block.input) if escaped(text) != text)
        case _:
            pass


def _result_texts(block: ToolResultBlock) -> Iterator[str]:
    """Yield the last one first."""
    return (part.text for part in reversed(block.content) if isinstance(part, TextBlock))


def _result_copies(text: str, *, is_escaped: bool) -> Iterator[str]:
    plain = without_line_numbers(text)
    if plain != text:
        yield plain
    if is_escaped and (inside := escaped(plain)) != plain:
        yield inside


def _numbered_files(block: ContentBlock) -> Iterator[str]:
    """Yield them without their numbers."""
    if isinstance(block, ToolResultBlock):
        pairs = ((without_line_numbers(text), text) for text in _result_texts(block))
        yield from (plain for plain, text in pairs if plain != text)


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for one in cast("dict[str, object]", value).values():
                yield from _strings(one)
        case list():
            for one in cast("list[object]", value):
                yield from _strings(one)
        case _:
            pass


def _within(texts: Iterable[str], max_chars: int) -> list[str]:
    """Return the first different texts; the last one trimmed to fit."""
    fitting: dict[str, None] = {}
    left = max_chars
    for text in texts:
        if left <= 0:
            break
        if text not in fitting:
            fitting[text[:left]] = None
            left -= len(text)
    return list(fitting)
