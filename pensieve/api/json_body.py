"""Decode a request's body from JSON, refusing whatever two decoders could understand differently.

Lone surrogates are the exception: clients that truncate text leave them in a conversation, so
refusing them would end the session. They are replaced by U+FFFD.

Runs in a thread: the decoder calls into Python at every object and number, so it never holds the
interpreter for long, and the number of values is limited. Knows no field.
"""

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn, cast

from pensieve.errors import InvalidRequestError

MAX_DEPTH = 64
MAX_DIGITS = 4300  # of an integer; Python converts no more, because it takes quadratic time
# A value may take 70 bytes of memory for three bytes of text. No sensible request comes near.
MAX_VALUES = 1_000_000

_SLICE = 1 << 20
_log = logging.getLogger("pensieve.api")
# A surrogate pair, a lone surrogate, or any other escape.
_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)
_REPLACEMENT = "\\ufffd"
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class _LongIntegerError(Exception):
    """An integer has too many digits."""


def decode(body: bytes, *, max_values: int = MAX_VALUES) -> object:
    """Decode UTF-8 without a byte order mark, within `MAX_DEPTH`, `MAX_DIGITS` and `max_values`.

    Raises `InvalidRequestError`, also for a duplicate key.
    """
    text = ""
    try:
        text = _decode_text(body)
        _check_text(text, max_values)
        value = cast("object", _DECODER.decode(text))
        _check_depth(value)
    except _LongIntegerError:
        raise _refusal_of_long_integer(text) from None
    except UnicodeDecodeError as error:
        raise _refusal(f"invalid UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _refusal(_TOO_DEEP) from None
    except ValueError as error:
        raise _refusal(str(error)) from None
    return value


def _refusal(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"The request body is not valid JSON: {reason}")


def _check_text(text: str, max_values: int) -> None:
    """Refuse what the decoder would accept, or would take too long for."""
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("unexpected byte order mark", text, 0)
    # Counting commas within strings too is cheap, and nearly always stays below the limit.
    if (
        _count_values(text) > max_values
        and sum(map(_count_values, _outside_strings(text))) > max_values
    ):
        raise ValueError(f"more than {max_values} values")


def _decode_text(body: bytes) -> str:
    """Return the text with U+FFFD for each lone surrogate, and log if there was one.

    Raises `UnicodeDecodeError`.
    """
    try:
        original = text = body.decode()
    except UnicodeDecodeError:
        original = body.decode("utf-8", "surrogatepass")
        text = original.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\\ud" in text or "\\uD" in text:
        text = _SURROGATE.sub(lambda escape: _REPLACEMENT if escape["lone"] else escape[0], text)
    if text != original:
        _log.warning("lone surrogate in a request body, read as U+FFFD")
    return text


def _count_values(text: str) -> int:
    """Return an upper bound: each value follows a comma or an opening bracket."""
    return text.count(",") + text.count("[") + text.count("{")


def _outside_strings(text: str) -> Iterator[str]:
    """Yield `text` without its strings, in slices, so that no single call takes long."""
    start, is_inside = 0, False
    while start < len(text):
        end = start + _SLICE
        while text[end - 1 : end] == "\\":
            end += 1
        quoted = text[start:end].replace("\\\\", "").replace('\\"', "").split('"')
        yield "".join(quoted[is_inside::2])
        is_inside ^= len(quoted) % 2 == 0
        start = end


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for container in level for child in _children(container)]
    if any(isinstance(value, dict | list) for value in level):
        raise ValueError(_TOO_DEEP)


def _refusal_of_long_integer(text: str) -> InvalidRequestError:
    """Decode again to find the integer's field."""
    try:
        value = cast("object", _MARKING_DECODER.decode(text))
        _check_depth(value)
    except RecursionError:
        return _refusal(_TOO_DEEP)
    except ValueError as error:
        return _refusal(str(error))
    path = ".".join(_path_of_long_integer(value) or ["body"])
    return InvalidRequestError(f"{path}: Input should have at most {MAX_DIGITS} digits")


def _path_of_long_integer(value: object) -> list[str] | None:
    """Return the names and indexes that lead to the first one, each of at most 60 characters."""
    if value is _LONG_INTEGER:
        return []
    named = cast("dict[str, object]", value).items() if isinstance(value, dict) else ()
    indexed = enumerate(cast("list[object]", value)) if isinstance(value, list) else ()
    for name, child in (*named, *indexed):
        if (path := _path_of_long_integer(child)) is not None:
            return [str(name)[:60], *path]
    return None


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        duplicate = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"duplicate key {json.dumps(duplicate[:60])}")
    return fields


def _is_long(digits: str) -> bool:
    return len(digits.lstrip("-")) > MAX_DIGITS


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS and _is_long(digits):
        raise _LongIntegerError
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number too large")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)

_LONG_INTEGER = object()
_MARKING_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=lambda digits: _LONG_INTEGER if _is_long(digits) else 0,
    parse_float=_number,
    parse_constant=_constant,
)
