"""Foreign JSON parses or raises one kind of error."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pensieve.untrusted_json import read_json, read_object


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:0e-\\u', max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 5_000)
@example(b"\xff\xfe")
def test_any_bytes_parse_or_raise_value_error(content: bytes) -> None:
    with suppress(ValueError):
        read_json(content)


def test_text_over_the_limit_is_refused_before_parsing() -> None:
    assert read_json("[1,2]", max_bytes=5) == [1, 2]
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_json("[1,2]", max_bytes=4)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"'])
def test_read_object_refuses_other_values(text: str) -> None:
    assert read_object('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="not an object"):
        read_object(text)
