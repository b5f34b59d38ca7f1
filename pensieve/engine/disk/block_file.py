"""The bytes of one block of KV cache on disk: a header that says what it is of, arrays, a checksum over all. No I/O.

Layout: magic, header length (4 bytes, big endian), header (JSON), the arrays' bytes one after another, then CRC-32 of
everything before (4 bytes, big endian). The folder is private, so the checksum is against disks and crashes, not against
people; it costs a fourth of a cryptographic one. Whatever does not check is damaged, and damaged means absent.
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
# The cache compares token ids as 32-bit numbers.
_LARGEST_INT = 2**31 - 1


class DamagedBlockError(Exception):
    """The file is cut, altered, of another version, or of another model."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array's numbers as they lie in memory, row by row. dtype: MLX's name for it."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Block:
    """The KV caches of `tokens`, all layers. `outline` says in JSON how `arrays` make up the layers."""

    tokens: tuple[int, ...]
    outline: Any
    arrays: tuple[StoredArray, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(len(array.content) for array in self.arrays)


def encode(block: Block, fingerprint: bytes) -> Iterator[bytes | memoryview]:
    """The file's content in pieces; numbers are not copied. fingerprint: of the model and precision they are of."""
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
    """The block in a file's content; its arrays are views of it. Raises `DamagedBlockError`."""
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
        raise DamagedBlockError(f"its header is not one ({type(error).__name__})") from error


def _block(header: Mapping[str, Any], numbers: memoryview, fingerprint: bytes) -> Block:
    """Raises ValueError, KeyError or TypeError for a header that is none."""
    if header["fingerprint"] != fingerprint.hex():
        raise DamagedBlockError("it is of another model")
    arrays: list[StoredArray] = []
    end = 0
    for (dtype, shape), length in zip(header["arrays"], header["lengths"], strict=True):
        start, end = end, end + _checked_int(length)
        sizes = tuple(map(_checked_int, shape))
        arrays.append(StoredArray(dtype, sizes, numbers[start:end]))
    if end != len(numbers):
        raise DamagedBlockError("it is not as long as its header says")
    return Block(_token_ids(header), header["outline"], tuple(arrays))


def _token_ids(header: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(map(_checked_int, header["tokens"]))


def _checked_int(value: object) -> int:
    """Raises ValueError for what is no size and no token id."""
    if type(value) is not int or not 0 <= value <= _LARGEST_INT:
        raise ValueError("not a whole number from 0 up")
    return value


def tokens_of(beginning: bytes) -> list[int]:
    """The tokens that a file is of, from its first bytes, unchecked: what is built on them is checked when it is read."""
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(beginning[len(MAGIC) : start], "big")
    try:
        return list(_token_ids(read_object(beginning[start:end])))
    except (ValueError, KeyError, TypeError):
        return []
