"""A request's bytes to JSON values, more strictly than JSON asks: whatever two readers could take differently is refused.

One thing is mended instead: half a character (a lone surrogate), as clients leave it where they cut a text. It
stays in a conversation for good, so a refusal would end the session.

Made to run in a thread beside an event loop: the decoder calls back into Python at every object and number, so it never
keeps the interpreter to itself for long, and how many values a body may hold bounds what they cost. Knows no field.
"""

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn, cast

from pensieve.errors import InvalidRequestError

MAX_DEPTH = 64
MAX_DIGITS = 19
# A value takes up to 70 bytes where its text takes three; no request that means something comes near.
MAX_VALUES = 1_000_000

_SLICE = 1 << 20
_log = logging.getLogger("pensieve.api")
# A pair, half of one, or any other escape.
_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)
_LONE = "\\ufffd"
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def decode(body: bytes, *, max_values: int = MAX_VALUES) -> object:
    """The value in `body`: UTF-8 without a mark, up to 64 levels deep, integers up to 19 digits, no key twice.

    Raises `InvalidRequestError` that says what is wrong, and nothing else.
    """
    try:
        text = _mended(body)
        _check_text(text, max_values)
        value = cast("object", _DECODER.decode(text))
        _check_depth(value)
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
    """What the decoder would take, or would take too long over."""
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("unexpected byte order mark", text, 0)
    # Nearly always even all the commas of all the texts are few.
    if _values(text) > max_values and sum(map(_values, _outside_strings(text))) > max_values:
        raise ValueError(f"more than {max_values} values")


def _mended(body: bytes) -> str:
    """Return the text with U+FFFD for each half of a character, and log it if there was one.

    Raises `UnicodeDecodeError`.
    """
    try:
        given = text = body.decode()
    except UnicodeDecodeError:
        given = body.decode("utf-8", "surrogatepass")
        text = given.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\\ud" in text or "\\uD" in text:
        text = _SURROGATE.sub(lambda escape: _LONE if escape["lone"] else escape[0], text)
    if text != given:
        _log.warning("a request held half a character (a lone surrogate), read as U+FFFD")
    return text


def _values(text: str) -> int:
    """How many values `text` holds at most: each comes after a comma or is the first inside something."""
    return text.count(",") + text.count("[") + text.count("{")


def _outside_strings(text: str) -> Iterator[str]:
    """`text` without the contents of its strings; a slice at a time, since one call on all of it would be long."""
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


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"duplicate key {json.dumps(twice[:60])}")
    return fields


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
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
