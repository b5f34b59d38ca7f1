"""JSON that others wrote, or could have: the one door from such text to values. It only reads or refuses."""

import json
from typing import cast

MAX_BYTES = 64 * 2**20


def read_json(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> object:
    """Return the value. Raises ValueError, and nothing else, for what is too long, too deep or no JSON."""
    if len(text) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes of JSON")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def read_object(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, object]:
    """Return the object. Raises ValueError, and nothing else, also for another kind of value."""
    value = read_json(text, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise ValueError("JSON, but no object")  # noqa: TRY004 -- callers catch one kind
    return cast("dict[str, object]", value)
