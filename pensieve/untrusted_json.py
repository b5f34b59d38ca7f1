"""Parse JSON that another program wrote or could have changed. All such text goes through here."""

import json
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

MAX_BYTES = 64 * 2**20
_MAX_INT = 2**63
# Seconds since 1970 that datetime can represent: until the year 5138.
_MAX_TIME_S = 10**11

RecordT = TypeVar("RecordT")


def read_json(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> object:
    """Return the value. Raises only ValueError, for text that is too long, too deep or not JSON."""
    if len(text) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes of JSON")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def read_object(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, object]:
    """Return the object. Raises only ValueError, also for another kind of value."""
    value = read_json(text, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise ValueError("JSON, but not an object")  # noqa: TRY004 -- callers catch one kind
    return cast("dict[str, object]", value)


def read_record(kind: type[RecordT], text: str | bytes) -> RecordT:
    """Return the dataclass `kind` from a JSON object. Raises only ValueError.

    Every float field of a record is a time.
    """
    fields: dict[str, Any] = read_object(text)
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name not in hints or not _is_a(value, hints[name]):
            raise ValueError(f"record of another version, or damaged: {name[:40]!r}")
    try:
        return kind(**fields)
    except TypeError:
        raise ValueError("record of another version, or damaged: a field is missing") from None


def _is_a(value: object, hint: Any) -> bool:
    if get_origin(hint) is UnionType:
        return any(_is_a(value, each) for each in get_args(hint))
    if get_origin(hint) is dict:
        _, values = get_args(hint)
        if not isinstance(value, dict):
            return False
        return all(_is_a(each, values) for each in cast("dict[str, object]", value).values())
    if hint is float:
        return type(value) in {int, float} and 0 <= cast("float", value) < _MAX_TIME_S
    return type(value) is hint and (hint is not int or 0 <= cast("int", value) < _MAX_INT)
