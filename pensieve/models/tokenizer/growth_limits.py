"""Bound how much longer a tokenizer can make a text, computed from its parts before it is used.

The tokenizers library needs about 50 bytes per byte of text while it encodes, and a sequence of
normalizers multiplies: six that write 28 bytes for one turn 61 characters into 15 GB. Each factor
here is an upper bound in bytes of output per byte of input. Knows no text.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import inf, prod
from typing import Any, cast

# A piece of 1000 characters (encoder.py) that grows by this takes 150 MB at most. Published
# tokenizers: byte-level ones 2 to 6, SentencePiece's 3 to 12, those with its NFKC table about 400
# (2026-11).
MAX_GROWTH = 1024
# For pre-tokenizers alone: Metaspace 6, ByteLevel with a space before each word 4.
MAX_PRE_GROWTH = 12
# The longest token of a published vocabulary has 512 characters; an answer can repeat one.
MAX_TOKEN_CHARS = 10_000
# BPE adds it before or after each part of a word: "</w>" and "##" are known.
MAX_AFFIX_CHARS = 64

# Bounds that do not depend on the part's fields. By Unicode 17, in UTF-8: NFC and NFD at most
# triple, NFKC and NFKD write 33 bytes for U+FDFA's 3.
_FIXED: Mapping[str, float] = {
    "BertNormalizer": 9,  # spaces round a Chinese character, after NFD
    "Lowercase": 2,
    "NFC": 3,
    "NFD": 3,
    "NFKC": 11,
    "NFKD": 11,
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
    **dict.fromkeys(("BertPreTokenizer", "CharDelimiterSplit", "Digits", "FixedLength"), 1),
    **dict.fromkeys(("Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"), 1),
}


@dataclass(frozen=True, slots=True)
class Growth:
    """Maximum bytes of output per byte of input; infinite for a part of an unknown kind."""

    normalizer: float
    pre_tokenizer: float

    @property
    def is_bounded(self) -> bool:
        return self.normalizer <= MAX_GROWTH and self.pre_tokenizer <= MAX_PRE_GROWTH


def growth_of(stored: Mapping[str, Any]) -> Growth:
    """`stored` has the two parts as in a tokenizer.json."""
    return Growth(
        _growth(stored.get("normalizer"), "normalizers"),
        _growth(stored.get("pre_tokenizer"), "pretokenizers"),
    )


def oversized(stored: Mapping[str, Any]) -> str | None:
    """Describe the first text in a tokenizer.json that is too long; None if there is none."""
    model = _fields(stored.get("model"))
    affixes = (model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    if any(isinstance(affix, str) and len(affix) > MAX_AFFIX_CHARS for affix in affixes):
        return f"adds more than {MAX_AFFIX_CHARS} characters to each part of a word"
    if any(len(token) > MAX_TOKEN_CHARS for token in _tokens(stored, model)):
        return f"has a token of more than {MAX_TOKEN_CHARS} characters"
    return None


def _growth(part: object, steps: str) -> float:
    """`steps` names the field with the parts of a sequence."""
    if part is None:
        return 1
    fields = _fields(part)
    kind = str(fields.get("type"))
    if kind == "Sequence":
        return prod((_growth(step, steps) for step in _list(fields.get(steps))), start=1.0)
    if bound := _BOUNDS.get(kind):
        return bound(fields)
    return _FIXED.get(kind, inf)


def _growth_by_replacing(replace: Mapping[str, Any]) -> float:
    """An expression can match the empty text; then the replacement precedes every character."""
    content = _bytes_in(replace.get("content"))
    pattern = _fields(replace.get("pattern"))
    if text := _bytes_in(pattern.get("String")):
        return max(1, content / text)
    return 1 + content


def _growth_by_table(precompiled: Mapping[str, Any]) -> float:
    """Read SentencePiece's table: the trie's size, the trie, replacements that each end with
    NUL.
    """
    charsmap = precompiled.get("precompiled_charsmap")
    if not charsmap:
        return 1
    try:
        table = base64.b64decode(charsmap if isinstance(charsmap, str) else "")
    except binascii.Error:
        return inf
    start = 4 + int.from_bytes(table[:4], "little")
    return max(1, *map(len, table[start:].split(b"\0")), 1)


_BOUNDS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "ByteLevel": lambda part: 4 if part.get("add_prefix_space") else 2,
    "Metaspace": lambda part: 2 * max(1, _bytes_in(part.get("replacement"))),
    "Precompiled": _growth_by_table,
    "Prepend": lambda part: 1 + _bytes_in(part.get("prepend")),
    "Replace": _growth_by_replacing,
}


def _tokens(stored: Mapping[str, Any], model: Mapping[str, Any]) -> Iterable[str]:
    vocabulary = model.get("vocab")
    yield from _fields(vocabulary)
    # Unigram stores each token with its score.
    scored = (entry[0] for entry in map(_list, _list(vocabulary)) if entry)
    added = (_fields(token).get("content") for token in _list(stored.get("added_tokens")))
    yield from (token for token in chain(scored, added) if isinstance(token, str))


def _bytes_in(text: object) -> int:
    return len(text.encode(errors="replace")) if isinstance(text, str) else 0


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
