"""How much longer a tokenizer can make a text, computed from its parts before it is used.

The tokenizers library keeps about 50 bytes for each byte of text while it encodes, and a sequence
of normalizers multiplies: six that write 28 bytes for one make 15 GB of 61 letters. Each factor
here is an upper bound in bytes of output for a byte of input. Knows no text.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import inf, prod
from typing import Any, cast

# A piece of 1000 letters (encoder.py) that grows by this takes 150 MB at most. Published tokenizers: byte-level ones 2
# to 6, SentencePiece's 3 to 12, those with its table of NFKC about 400 (2026-11).
MAX_GROWTH = 1024
# Of pre-tokenizers alone: Metaspace 6, ByteLevel with a space before each word 4.
MAX_PRE_GROWTH = 12
# The longest token of a published vocabulary has 512 letters; an answer writes one again and again.
MAX_TOKEN_LETTERS = 10_000
# What BPE puts before or after each word's parts: "</w>" and "##" are known.
MAX_AFFIX_LETTERS = 64

# What needs no look at the part. By Unicode 17, in UTF-8: NFC and NFD triple at most, NFKC and NFKD
# write 33 bytes for U+FDFA's 3.
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
    """Bytes of output for a byte of input, at most; infinite for a part of an unknown kind."""

    normalizer: float
    pre_tokenizer: float

    @property
    def is_bounded(self) -> bool:
        return self.normalizer <= MAX_GROWTH and self.pre_tokenizer <= MAX_PRE_GROWTH


def growth_of(stored: Mapping[str, Any]) -> Growth:
    """stored: the two parts as a tokenizer.json has them."""
    return Growth(
        _growth(stored.get("normalizer"), "normalizers"),
        _growth(stored.get("pre_tokenizer"), "pretokenizers"),
    )


def oversized(stored: Mapping[str, Any]) -> str | None:
    """Return what is too long in a tokenizer.json, all of it; None where nothing is."""
    model = _fields(stored.get("model"))
    affixes = (model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    if any(isinstance(affix, str) and len(affix) > MAX_AFFIX_LETTERS for affix in affixes):
        return f"adds more than {MAX_AFFIX_LETTERS} letters to each part of a word"
    if any(len(token) > MAX_TOKEN_LETTERS for token in _tokens(stored, model)):
        return f"has a token of more than {MAX_TOKEN_LETTERS} letters"
    return None


def _growth(part: object, steps: str) -> float:
    """steps: the field in which a sequence has its parts."""
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
    """What an expression matches may be empty: then its replacement comes before every letter."""
    content = _bytes_in(replace.get("content"))
    pattern = _fields(replace.get("pattern"))
    if text := _bytes_in(pattern.get("String")):
        return max(1, content / text)
    return 1 + content


def _growth_by_table(precompiled: Mapping[str, Any]) -> float:
    """SentencePiece's table: the size of a trie, the trie, replacements that each end with NUL."""
    charsmap = precompiled.get("precompiled_charsmap")
    if not charsmap:
        return 1
    try:
        table = base64.b64decode(charsmap if isinstance(charsmap, str) else "")
    except binascii.Error:
        return inf
    begins = 4 + int.from_bytes(table[:4], "little")
    return max(1, *map(len, table[begins:].split(b"\0")), 1)


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
    # Unigram has each token with its score.
    scored = (entry[0] for entry in map(_list, _list(vocabulary)) if entry)
    added = (_fields(token).get("content") for token in _list(stored.get("added_tokens")))
    yield from (token for token in chain(scored, added) if isinstance(token, str))


def _bytes_in(text: object) -> int:
    return len(text.encode(errors="replace")) if isinstance(text, str) else 0


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
