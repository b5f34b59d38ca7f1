"""Foreign JSON parses or raises one kind of error."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pensieve.untrusted_json import read_json, read_object, read_record


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


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    size: int
    written_at: float
    ended_at: float | None = None
    counts: dict[str, int] = field(default_factory=dict[str, int])


RECORD = asdict(Record("a", 1, 1.5, 2, {"b": 1}))


def test_a_record_round_trips_with_and_without_default_fields() -> None:
    assert read_record(Record, json.dumps(RECORD)) == Record(**RECORD)
    assert read_record(Record, '{"name": "a", "size": 1, "written_at": 1}') == Record("a", 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        *[{"name": None}, {"name": 1}, {"size": "1"}, {"size": 1.5}, {"size": True}, {"size": -1}],
        *[{"size": 10**30}, {"written_at": "x"}, {"written_at": 1e300}, {"written_at": -1}],
        *[{"written_at": float("nan")}, {"ended_at": []}, {"counts": []}, {"counts": {"a": "b"}}],
        *[{"another": 1}, {"": {}}],
    ],
    ids=str,
)
def test_a_record_of_another_version_or_with_other_values_is_refused(
    change: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match="record"):
        read_record(Record, json.dumps(RECORD | change))


def test_a_record_without_a_required_field_is_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        read_record(Record, '{"name": "a"}')
