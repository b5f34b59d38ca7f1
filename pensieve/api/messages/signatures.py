"""Signatures of thinking blocks, which clients send back with the block. They prove nothing.

If a client hides thoughts, the signature contains the thought, so that later prompts can use it.
"""

import base64
import binascii
import secrets
import zlib

_VERSION = "pensieve1"
# More than the thought of one answer: a larger text was not compressed by pensieve.
MAX_TEXT_BYTES = 4 * 1024 * 1024


def signature_of(thought: str, *, carries_text: bool) -> str:
    """Return a new signature, different at every call."""
    signature = f"{_VERSION}.{secrets.token_urlsafe(12)}"
    return with_text(signature, thought) if carries_text else signature


def with_text(signature: str, thought: str) -> str:
    """Return a signature without text as one that contains its thought."""
    packed = base64.b64encode(zlib.compress(thought.encode()))
    return f"{signature}.{packed.decode()}"


def bare_signature(signature: str) -> str:
    """Return the signature without the text that `with_text` added; another server's unchanged."""
    match signature.split("."):
        case [version, name, _] if version == _VERSION:
            return f"{version}.{name}"
        case _:
            return signature


def thought_in(signature: str) -> str | None:
    """Return the thought in a signature; None without one, or for another server's signature."""
    match signature.split("."):
        case [version, _, packed] if version == _VERSION:
            return _unpack(packed)
        case _:
            return None


def _unpack(packed: str) -> str | None:
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(base64.b64decode(packed, validate=True), MAX_TEXT_BYTES)
        return text.decode() if decompressor.eof else None
    except (binascii.Error, zlib.error, UnicodeDecodeError):
        return None
