"""JSON that others wrote is read or refused with one kind of error."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pensieve.foreign_json import read_json, read_object


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:0e-\\u', max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 5_000)
@example(b"\xff\xfe")
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        read_json(content)
    except ValueError:
        return


def test_what_is_longer_than_allowed_is_refused_before_it_is_read() -> None:
    assert read_json("[1,2]", max_bytes=5) == [1, 2]
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_json("[1,2]", max_bytes=4)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"'])
def test_what_is_no_object_is_refused_where_one_is_wanted(text: str) -> None:
    assert read_object('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="no object"):
        read_object(text)
