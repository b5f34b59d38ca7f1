"""The bytes of one block of KV cache on disk: a header that says what it is of, arrays, a checksum over all. No I/O.

Layout: magic, header length (4 bytes, big endian), header (JSON), the arrays' bytes one after another, then blake2b-256 of
everything before. Whatever does not check is damaged, and damaged means absent: never an answer from wrong numbers.
"""

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

MAGIC = b"pensieve kv 1\n"
_LENGTH_BYTES = 4
_DIGEST_BYTES = 32


class DamagedBlockError(Exception):
    """The file is cut, altered, of another version, or of another model."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array's numbers as they lie in memory, row by row. dtype: MLX's name for it."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """The KV caches of `tokens`, all layers. `outline` says in JSON how `arrays` make up the layers."""

    tokens: tuple[int, ...]
    outline: Any
    arrays: tuple[StoredArray, ...]


def encode(block: Block, fingerprint: bytes) -> bytes:
    """The file's content. fingerprint: of the model and precision that the numbers are of."""
    header = json.dumps(
        {
            "fingerprint": fingerprint.hex(),
            "tokens": block.tokens,
            "outline": block.outline,
            "arrays": [(array.dtype, array.shape) for array in block.arrays],
            "lengths": [len(array.content) for array in block.arrays],
        },
        separators=(",", ":"),
    ).encode()
    content = b"".join(
        (
            MAGIC,
            len(header).to_bytes(_LENGTH_BYTES, "big"),
            header,
            *(array.content for array in block.arrays),
        )
    )
    return content + blake2b(content, digest_size=_DIGEST_BYTES).digest()


def decode(content: bytes, fingerprint: bytes) -> Block:
    """The block in a file's content. Raises `DamagedBlockError`."""
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not body.startswith(MAGIC) or blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise DamagedBlockError("the checksum does not match")
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(body[len(MAGIC) : start], "big")
    header = json.loads(body[start:end])
    if header["fingerprint"] != fingerprint.hex():
        raise DamagedBlockError("it is of another model")
    arrays: list[StoredArray] = []
    for (dtype, shape), length in zip(header["arrays"], header["lengths"], strict=True):
        arrays.append(StoredArray(dtype, tuple(shape), body[end : end + length]))
        end += length
    return Block(tuple(header["tokens"]), header["outline"], tuple(arrays))


def tokens_of(beginning: bytes) -> list[int]:
    """The tokens that a file is of, from its first bytes, unchecked: what is built on them is checked when it is read."""
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(beginning[len(MAGIC) : start], "big")
    try:
        return json.loads(beginning[start:end])["tokens"]
    except (ValueError, KeyError, TypeError):
        return []
