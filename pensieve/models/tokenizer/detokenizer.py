"""Turn tokens into text as they arrive: each token's bytes, through an incremental UTF-8 decoder.

Exact, with constant time per token. Decoding the tail repeatedly instead yields replacement
characters for half an emoji and loses spaces; tokenizers' DecodeStream raises in the middle of an
answer (0.23.3, "Invalid prefix encountered") if a model writes an invalid byte. Knows the two
decoders of chat models: byte-level BPE, and SentencePiece's pieces with byte fallback.
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
    """The bytes of each token of `tokenizer`; `hidden` tokens have none.

    Raises `ModelDamagedError` for a tokenizer with an unknown decoder.
    """

    def __init__(self, tokenizer: Tokenizer, hidden: Collection[int]) -> None:
        steps = set(_steps(json.loads(tokenizer.to_str())["decoder"]))
        self._bytes_of = _reader(steps)
        self._tokenizer = tokenizer
        self.hidden = frozenset(hidden)
        # SentencePiece adds a space before the first word.
        self.has_leading_space = "Strip" in steps

    def bytes_of(self, token_id: int) -> bytes:
        """Return the token's bytes; none for hidden tokens and unknown ids."""
        token = None if token_id in self.hidden else self._tokenizer.id_to_token(token_id)
        return self._bytes_of(token) if token else b""

    def name_of(self, token_id: int) -> bytes:
        """Return a token's text in the vocabulary, also of a hidden one."""
        return (self._tokenizer.id_to_token(token_id) or "").encode()


class StreamDetokenizer:
    """The text of one sequence. Implements `prompt.template.Detokenizer`."""

    def __init__(
        self,
        texts: TokenTexts,
        preceding: Sequence[int],
        visible: Collection[int] = (),  # these become text even if `texts` hides them
    ) -> None:
        self._texts = texts
        self._visible = visible
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_at_start = True
        for token_id in preceding:
            self.feed(token_id)

    def feed(self, token_id: int) -> str:
        """Return the text that is complete now; empty within a multi-byte character."""
        if token_id in self._visible:
            self._is_at_start = True
            return self._utf8.decode(self._texts.name_of(token_id))
        if token_id in self._texts.hidden:
            self._is_at_start = True
            return ""
        token_bytes = self._texts.bytes_of(token_id)
        if token_bytes and self._is_at_start:
            self._is_at_start = False
            token_bytes = (
                token_bytes.removeprefix(b" ") if self._texts.has_leading_space else token_bytes
            )
        return self._utf8.decode(token_bytes)

    def flush(self) -> str:
        """Return a replacement character for an incomplete character at the end."""
        return self._utf8.decode(b"", final=True)


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the decoder's step types, including those of a sequence."""
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
        f"The model's tokenizer decodes by {', '.join(sorted(steps)) or 'no decoder'}, which"
        " pensieve does not support.",
        hint="Choose a model with byte-level BPE or SentencePiece with byte fallback.",
    )


def _from_byte_level(token: str, alphabet: Mapping[str, int]) -> bytes:
    """Return an added token with characters outside the alphabet as plain text."""
    if all(char in alphabet for char in token):
        return bytes(alphabet[char] for char in token)
    return token.encode()


def _from_sentence_piece(token: str) -> bytes:
    if byte := _BYTE_PIECE.fullmatch(token):
        return bytes.fromhex(byte[1])
    return token.replace(SPACE_SIGN, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's character for each byte: printable Latin-1 itself, the others from U+0100
    on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + order): byte for order, byte in enumerate(others)
    }
