"""JSON checked character by character, compared with Python's own parser."""

import json
import math
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pensieve.reply.json_prefix import MAX_DIGITS, json_string, normalize_json

PIECES = (
    *("{", "}", "[", "]", '"', ",", ":", " ", "\n", "\t", "\r", "-", "+", ".", "0", "1", "9", "e"),
    *("E", "a", "é", "🙂", "true", "false", "null", "tru", "nul", "\\", "\\u", "\\x", "\\'"),
    *('\\"', "\\\\", "\\/", "\\n", "\\b\\f\\r\\t", "\\u00e9", "\\uFFFF", "\\ud7ff", "\\ud800"),
    *("\\uDBFF", "\\udc00", "\\uDFFF", "\\ue000", "\\u12g4", "\x1f", "\x7f"),
    *("'", "?", "\\u12?4", "NaN", "1.5e-3", '"a": '),
)  # fmt: skip
pieces = st.sampled_from(PIECES)
in_a_string = pieces.filter(lambda piece: '"' not in piece)
soup = st.lists(pieces, max_size=10).map("".join)
texts = st.lists(in_a_string, max_size=6).map(lambda parts: f'"{"".join(parts)}"')
numbers = st.text("-+.eE019", max_size=6)
blank = st.sampled_from(["", " ", "\n", "\t\r"])


@st.composite
def joined(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """Return a list or an object, sometimes with a wrong character."""
    parts = draw(st.lists(inner, max_size=3))
    is_object = draw(st.booleans())
    keys = [draw(texts) + draw(blank) + ":" for _ in parts] if is_object else [""] * len(parts)
    items = [draw(blank) + key + draw(blank) + part for key, part in zip(keys, parts, strict=True)]
    inside = ",".join(items) + draw(blank) + draw(st.sampled_from(["", "", "", ",", "]", "1"]))
    return f"{{{inside}}}" if is_object else f"[{inside}]"


scalars = st.sampled_from(["true", "false", "null", "0", "-1.5e3"]) | numbers | texts
documents = st.recursive(scalars, joined, max_leaves=6) | soup


def without_surrogates(value: Any) -> Any:
    """Replace lone surrogates by U+FFFD."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [without_surrogates(item) for item in value]
        case dict():
            return {
                without_surrogates(key): without_surrogates(item) for key, item in value.items()
            }
    return value


def refuse(constant: str) -> None:
    raise ValueError(constant)


def finite(written: str) -> float:
    if math.isinf(float(written)):
        raise ValueError(written)
    return float(written)


@given(documents)
@example('"\\ud800\\ud800\\udc00\\udc00"')
@example('"\\ud800')
@example('"\\udfff\\ue000"')
@settings(max_examples=600)
def test_exactly_valid_json_is_accepted_with_the_same_value(text: str) -> None:
    written = normalize_json(text)
    try:
        value = json.loads(text, strict=False, parse_constant=refuse, parse_float=finite)
    except ValueError:
        assert written is None
    else:
        assert written is not None
        assert json.dumps(json.loads(written)) == json.dumps(without_surrogates(value))


def test_a_number_with_too_many_digits_is_refused() -> None:
    assert normalize_json("1" * MAX_DIGITS) is not None
    assert normalize_json("1" * (MAX_DIGITS + 1)) is None
    assert normalize_json(f"[{'1' * (MAX_DIGITS + 1)}]") is None
    assert normalize_json("[0." + "3" * MAX_DIGITS + "]") is None
    assert json.loads(normalize_json(f"[-{'9' * (MAX_DIGITS - 1)}]") or "")[0] < -1


def test_a_number_that_is_infinite_is_refused() -> None:
    assert normalize_json("1e308") == "1e308"
    assert normalize_json("1e309") is None
    assert normalize_json("[-1.5E999]") is None
    assert normalize_json("1" * 400) == "1" * 400


@given(st.text(st.characters() | st.sampled_from('\ud800\udc00\x00\n"\\')))
def test_a_json_string_decodes_to_its_text(text: str) -> None:
    assert json.loads(json_string(text)) == without_surrogates(text)
    assert json_string("é🙂") == '"é🙂"'
