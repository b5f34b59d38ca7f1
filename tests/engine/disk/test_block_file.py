"""Tests the format of a KV cache block: round trip and detection of damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.disk.block_file import (
    Block,
    DamagedBlockError,
    StoredArray,
    decode,
    encode,
    tokens_of,
)

arrays = st.builds(
    StoredArray,
    st.sampled_from(["float32", "bfloat16"]),
    st.lists(st.integers(0, 9)).map(tuple),
    st.binary(max_size=50),
)
blocks = st.builds(
    Block,
    st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple),
    st.lists(st.lists(st.integers(0, 9))),
    st.lists(arrays, max_size=5).map(tuple),
)
BLOCK = Block((1, 2, 3), [[0, 1]], (StoredArray("float32", (1,), b"abcd"),) * 2)


@given(blocks)
def test_encoded_block_decodes_to_an_equal_block(block: Block) -> None:
    content = b"".join(encode(block, b"model"))
    assert decode(content, b"model") == block
    assert tokens_of(content[: 1 << 16]) == list(block.tokens)


def test_every_flipped_bit_is_detected() -> None:
    content = b"".join(encode(BLOCK, b"model"))
    for at in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            with pytest.raises(DamagedBlockError):
                decode(bytes(damaged), b"model")


def test_every_truncation_is_detected() -> None:
    content = b"".join(encode(BLOCK, b"model"))
    for end in range(len(content)):
        with pytest.raises(DamagedBlockError):
            decode(content[:end], b"model")
        assert tokens_of(content[:end]) in ([], [1, 2, 3])


def test_block_of_another_model_is_refused() -> None:
    with pytest.raises(DamagedBlockError, match="another model"):
        decode(b"".join(encode(BLOCK, b"one")), b"other")


@pytest.mark.parametrize("page", [1, 7, 64])
def test_block_with_zeroed_pages_is_detected(
    page: int,
) -> None:
    """After a power cut, any page of a file that was not synced may read as zeros."""
    content = b"".join(encode(BLOCK, b"model"))
    for start in range(0, len(content), page):
        for end in (start + page, len(content)):
            torn = content[:start] + bytes(len(content[start:end])) + content[end:]
            if torn == content:
                continue
            with pytest.raises(DamagedBlockError):
                decode(torn, b"model")
            assert tokens_of(torn) in ([], [1, 2, 3])


def test_block_followed_by_old_bytes_is_detected() -> None:
    content = b"".join(encode(BLOCK, b"model"))
    for old in (b"\0", b"x" * 4096, content):
        with pytest.raises(DamagedBlockError):
            decode(content + old, b"model")
