"""Encodes and decodes one block of KV cache on disk: header, arrays, checksum. No I/O.

Layout: magic, header length (4 bytes, big endian), header (JSON), the arrays' bytes one after
another, then CRC-32 of everything before (4 bytes, big endian). The folder is private, so the
checksum guards against disks and crashes, not people; it costs a quarter of a cryptographic one.
Callers treat a damaged file as a missing one.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pensieve.untrusted_json import read_object

MAGIC = b"pensieve kv 2\n"
_LENGTH_BYTES = 4
_CHECKSUM_BYTES = 4
# Token ids are compared as 32-bit numbers.
_MAX_INT = 2**31 - 1


class DamagedBlockError(Exception):
    """The file is truncated, altered, of another version, or of another model."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array's values in memory order, row by row."""

    dtype: str  # MLX's name
    shape: tuple[int, ...]
    content: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Block:
    """The KV caches of `tokens`, all layers."""

    tokens: tuple[int, ...]
    outline: Any  # JSON: which of `arrays` make up each layer
    arrays: tuple[StoredArray, ...]

    @property
    def nbytes(self) -> int:
        return sum(len(array.content) for array in self.arrays)


def encode(block: Block, fingerprint: bytes) -> Iterator[bytes | memoryview]:
    """Yield the file's content; arrays are not copied. `fingerprint`: of model and precision."""
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
    checksum = 0
    for piece in (
        MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header,
        *(array.content for array in block.arrays),
    ):
        checksum = zlib.crc32(piece, checksum)
        yield piece
    yield checksum.to_bytes(_CHECKSUM_BYTES, "big")


def decode(content: bytes, fingerprint: bytes) -> Block:
    """Return the block in a file's content, as views of it. Raises `DamagedBlockError`."""
    whole = memoryview(content)
    body, checksum = whole[:-_CHECKSUM_BYTES], whole[-_CHECKSUM_BYTES:]
    if not content.startswith(MAGIC) or zlib.crc32(body) != int.from_bytes(checksum, "big"):
        raise DamagedBlockError("the checksum does not match")
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(body[len(MAGIC) : start], "big")
    try:
        header = read_object(bytes(body[start:end]))
        return _block(header, body[end:], fingerprint)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedBlockError(f"the header is invalid ({type(error).__name__})") from error


def _block(header: Mapping[str, Any], content: memoryview, fingerprint: bytes) -> Block:
    """Raises ValueError, KeyError or TypeError for an invalid header."""
    if header["fingerprint"] != fingerprint.hex():
        raise DamagedBlockError("it belongs to another model")
    arrays: list[StoredArray] = []
    end = 0
    for (dtype, shape), length in zip(header["arrays"], header["lengths"], strict=True):
        start, end = end, end + _checked_int(length)
        sizes = tuple(map(_checked_int, shape))
        arrays.append(StoredArray(dtype, sizes, content[start:end]))
    if end != len(content):
        raise DamagedBlockError("its length differs from its header's")
    return Block(_token_ids(header), header["outline"], tuple(arrays))


def _token_ids(header: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(map(_checked_token, header["tokens"]))


def _checked_token(value: object) -> int:
    """Return a token id; those of pictures are negative. Raises ValueError for anything else."""
    if type(value) is not int or not -_MAX_INT - 1 <= value <= _MAX_INT:
        raise ValueError("no token")
    return value


def _checked_int(value: object) -> int:
    """Return a size. Raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= _MAX_INT:
        raise ValueError("not a whole number from 0 up")
    return value


def tokens_of(beginning: bytes) -> list[int]:
    """Return the token ids from a file's first bytes; empty if they are invalid.

    The checksum is not verified: `decode` does that before the block is used.
    """
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(beginning[len(MAGIC) : start], "big")
    try:
        return list(_token_ids(read_object(beginning[start:end])))
    except (ValueError, KeyError, TypeError):
        return []
