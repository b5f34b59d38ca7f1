"""Parse JSON that another program wrote or could have changed. All such text goes through here."""

import json
from typing import cast

MAX_BYTES = 64 * 2**20


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
