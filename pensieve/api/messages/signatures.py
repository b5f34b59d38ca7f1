"""Signatures of thinking blocks: opaque to clients, which send them back. Made here, read here, never checked.

Where a client does not want to see thoughts, the signature carries the text, so that the model can be shown again what it thought.
"""

import base64
import binascii
import secrets
import zlib

_VERSION = "pensieve1"
# Thoughts are text of a model's one answer; what inflates to more was not made here.
MAX_TEXT_BYTES = 4 * 1024 * 1024


def signature_of(thought: str, *, carries_text: bool) -> str:
    """A fresh signature for a thought."""
    name = secrets.token_urlsafe(12)
    if not carries_text:
        return f"{_VERSION}.{name}"
    packed = base64.b64encode(zlib.compress(thought.encode()))
    return f"{_VERSION}.{name}.{packed.decode()}"


def thought_in(signature: str) -> str | None:
    """The thought that a signature carries; None for one that carries none, or is another server's."""
    match signature.split("."):
        case [version, _, packed] if version == _VERSION:
            return _unpacked(packed)
        case _:
            return None


def _unpacked(packed: str) -> str | None:
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(base64.b64decode(packed, validate=True), MAX_TEXT_BYTES)
        return text.decode() if inflating.eof else None
    except (binascii.Error, zlib.error, UnicodeDecodeError):
        return None
