"""Tokens to text while they arrive: each token's bytes, through one incremental UTF-8 decoder.

Exact, and constant time per token. Decoding the tail again and again instead gives a replacement character for half an
emoji and loses spaces; tokenizers' DecodeStream raises in the middle of an answer (0.23.3, "Invalid prefix encountered")
where a model writes a byte that is no UTF-8. Knows the two decoders of chat models: byte-level BPE, and SentencePiece's
pieces with byte fallback.
"""

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from tokenizers import Tokenizer

from pensieve.errors import ModelDamagedError

SPACE_SIGN = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenTexts:
    """What each token of `tokenizer` writes, as bytes; the `hidden` ones write nothing.

    Raises `ModelDamagedError` for a tokenizer whose decoder is of another kind.
    """

    def __init__(self, tokenizer: Tokenizer, hidden: Collection[int]) -> None:
        steps = set(_steps(json.loads(tokenizer.to_str())["decoder"]))
        self._bytes_of = _reader(steps)
        self._tokenizer = tokenizer
        self.hidden = frozenset(hidden)
        # SentencePiece writes a space before the first word, which nobody wrote.
        self.has_leading_space = "Strip" in steps

    def bytes_of(self, token_id: int) -> bytes:
        """The token's bytes; none for a hidden token and for an id that the vocabulary does not have."""
        token = None if token_id in self.hidden else self._tokenizer.id_to_token(token_id)
        return self._bytes_of(token) if token else b""

    def name_of(self, token_id: int) -> bytes:
        """What a token is called, also a hidden one."""
        return (self._tokenizer.id_to_token(token_id) or "").encode()


class StreamDetokenizer:
    """One sequence's text. Implements `prompt.template.Detokenizer`."""

    def __init__(
        self, texts: TokenTexts, preceding: Sequence[int], shown: Collection[int] = ()
    ) -> None:
        """shown: tokens whose names are text here, also where they are hidden elsewhere."""
        self._texts = texts
        self._shown = shown
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_at_start = True
        for token_id in preceding:
            self.feed(token_id)

    def feed(self, token_id: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""
        if token_id in self._shown:
            self._is_at_start = True
            return self._utf8.decode(self._texts.name_of(token_id))
        if token_id in self._texts.hidden:
            self._is_at_start = True
            return ""
        written = self._texts.bytes_of(token_id)
        if written and self._is_at_start:
            self._is_at_start = False
            written = written.removeprefix(b" ") if self._texts.has_leading_space else written
        return self._utf8.decode(written)

    def flush(self) -> str:
        """What was held back: a replacement character for a character that never became whole."""
        return self._utf8.decode(b"", final=True)


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[str]:
    """The decoder's step types, with those of a sequence."""
    if decoder is None:
        return
    yield decoder["type"]
    for step in cast("list[Mapping[str, Any]]", decoder.get("decoders", [])):
        yield from _steps(step)


def _reader(steps: set[str]) -> Callable[[str], bytes]:
    if "ByteLevel" in steps:
        alphabet = _byte_alphabet()
        return lambda token: _from_byte_level(token, alphabet)
    if {"Replace", "ByteFallback"} <= steps:
        return _from_sentence_piece
    raise ModelDamagedError(
        f"The model's tokenizer writes text by {', '.join(sorted(steps)) or 'no decoder'}, which pensieve does not know.",
        hint="Byte-level BPE and SentencePiece with byte fallback are known; choose a model with one of them.",
    )


def _from_byte_level(token: str, alphabet: Mapping[str, int]) -> bytes:
    """An added token may hold characters outside the alphabet: then it is text as it stands."""
    if all(character in alphabet for character in token):
        return bytes(alphabet[character] for character in token)
    return token.encode()


def _from_sentence_piece(token: str) -> bytes:
    if byte := _BYTE_PIECE.fullmatch(token):
        return bytes.fromhex(byte[1])
    return token.replace(SPACE_SIGN, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: itself where it is printable Latin-1, else from U+0100 on in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + order): byte for order, byte in enumerate(others)
    }
