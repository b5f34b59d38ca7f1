"""Signatures of thinking blocks, with and without the thought."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.signatures import (
    MAX_TEXT_BYTES,
    bare_signature,
    signature_of,
    thought_in,
    with_text,
)


@given(st.text())
def test_a_thought_is_recovered_from_its_signature(thought: str) -> None:
    assert thought_in(signature_of(thought, carries_text=True)) == thought


def test_a_signature_without_the_thought_is_short_and_unique() -> None:
    signature = signature_of("secret", carries_text=False)
    assert thought_in(signature) is None
    assert len(signature) < 40
    assert signature != signature_of("secret", carries_text=False)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "EqQBCkYIBxgCKkBdirected+by=another/server==",
        "pensieve1.name.not base64!",
        "pensieve1.name.YWJj",
        f"pensieve1.name.{base64.b64encode(zlib.compress(b'x')[:-3]).decode()}",
        f"pensieve1.name.{base64.b64encode(zlib.compress(bytes([255]))).decode()}",
        f"pensieve1.name.{base64.b64encode(zlib.compress(b'x' * (MAX_TEXT_BYTES + 1))).decode()}",
        f"pensieve9.name.{base64.b64encode(zlib.compress(b'x')).decode()}",
    ],
)
def test_foreign_and_damaged_signatures_contain_no_thought(signature: str) -> None:
    assert thought_in(signature) is None


@given(st.text())
def test_a_signature_is_recovered_from_the_one_with_its_thought(thought: str) -> None:
    bare = signature_of("", carries_text=False)
    assert thought_in(with_text(bare, thought)) == thought
    assert bare_signature(with_text(bare, thought)) == bare_signature(bare) == bare
    assert bare_signature("another.servers.signature") == "another.servers.signature"
