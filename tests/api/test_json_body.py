"""Bodies as JSON: what every decoder understands the same way is accepted, the rest refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.json_body import MAX_DEPTH, MAX_DIGITS, decode
from pensieve.errors import InvalidRequestError

PREFIX = "The request body is not valid JSON: "


def refusal(body: bytes, **limits: int) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        decode(body, **limits)
    assert caught.value.message.startswith(PREFIX)
    return caught.value.message.removeprefix(PREFIX)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_encoded_json_decodes_to_the_same_value(
    value: object, is_ascii: bool, indent: int | None
) -> None:
    assert decode(json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()) == value


@given(st.binary(max_size=40) | st.text('[]{}":,\\ud8c9e-.0 \n', max_size=40).map(str.encode))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    with suppress(InvalidRequestError):
        json.dumps(decode(body), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b" \n ", "Expecting value: line 2 column 2 (char 3)"),
        (b"nonsense", "Expecting value: line 1 column 1 (char 0)"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[", "Expecting value: line 1 column 2 (char 1)"),
        (b'{"a"}', "Expecting ':' delimiter: line 1 column 5 (char 4)"),
        (b'{"a":}', "Expecting value: line 1 column 6 (char 5)"),
        (b'{"a":1 "b":2}', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
        (b"[1 2]", "Expecting ',' delimiter: line 1 column 4 (char 3)"),
        (
            b"{'a': 1}",
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (b"{} {}", "Extra data: line 1 column 4 (char 3)"),
        (b"{}\0", "Extra data: line 1 column 3 (char 2)"),
        (b"\0", "Expecting value: line 1 column 1 (char 0)"),
        (b'"a\0b"', "Invalid control character at: line 1 column 3 (char 2)"),
        (b'"a\nb"', "Invalid control character at: line 1 column 3 (char 2)"),
        (b'"a\x1b[31m"', "Invalid control character at: line 1 column 3 (char 2)"),
        (b'"a', "Unterminated string starting at: line 1 column 1 (char 0)"),
        (b'"\\x"', "Invalid \\escape: line 1 column 2 (char 1)"),
        (b'"\\u12"', "Invalid \\uXXXX escape: line 1 column 3 (char 2)"),
        (b"tru", "Expecting value: line 1 column 1 (char 0)"),
        (b"True", "Expecting value: line 1 column 1 (char 0)"),
        (b"+1", "Expecting value: line 1 column 1 (char 0)"),
        (b"01", "Extra data: line 1 column 2 (char 1)"),
        (b"1.", "Extra data: line 1 column 2 (char 1)"),
        (b"0x10", "Extra data: line 1 column 2 (char 1)"),
        (b"/* */ {}", "Expecting value: line 1 column 1 (char 0)"),
        (b"\xef\xbb\xbf{}", "unexpected byte order mark: line 1 column 1 (char 0)"),
        (b'"\xff"', "invalid UTF-8 at byte 1"),
        (b'"\xc0\xaf"', "invalid UTF-8 at byte 1"),
        (b'"\xf4\x90\x80\x80"', "invalid UTF-8 at byte 1"),
        (b'"\xe2\x82"', "invalid UTF-8 at byte 1"),
        ('{"a": 1}'.encode("utf-16"), "invalid UTF-8 at byte 0"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"1e400", "a number too large"),
        (b"-1e400", "a number too large"),
        (b'{"a": 1, "b": 2, "a": 1}', 'duplicate key "a"'),
        (b'{"a": 1, "\\u0061": 2}', 'duplicate key "a"'),
        (b'[{"x": {"": 1, "": 2}}]', 'duplicate key ""'),
    ],
)
def test_invalid_json_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    assert refusal(body) == reason


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
        (b"-" + b"9" * MAX_DIGITS, -(10**MAX_DIGITS) + 1),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\uD83D\\uDE00\\\\ud800"', "\U0001f600\\ud800"),
        (b'"\\u0000"', "\0"),
        (b'"\xc2\x80\xef\xbf\xbe"', "\x80\ufffe"),
        (b"1e-400", 0.0),
        (b'{"a": {"a": 1}, "A": 2}', {"a": {"a": 1}, "A": 2}),
        (b" \t\r\n{ } ", {}),
    ],
)
def test_unusual_but_unambiguous_json_is_accepted(body: bytes, value: object) -> None:
    assert decode(body) == value


@pytest.mark.parametrize("digits", ["1" * (MAX_DIGITS + 1), "-" + "1" * 1_000_000])
def test_an_integer_with_too_many_digits_is_refused_by_its_field(digits: str) -> None:
    body = f'{{"a": 1, "b": [0, {{"c_d": [{digits}, {digits}]}}]}}'
    with pytest.raises(InvalidRequestError) as caught:
        decode(body.encode())
    assert caught.value.message == "b.1.c_d.0: Input should have at most 4300 digits"
    with pytest.raises(InvalidRequestError, match=r"\Abody: Input should have at most"):
        decode(digits.encode())


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'"\\ud800"', "\ufffd"),
        (b'"x\\uDBFFx"', "x\ufffdx"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd\U0001f600"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"\\ud800\\u0041"', "\ufffdA"),
        (b'{"\\udc00": {"a": ["\\uDFFF"]}}', {"\ufffd": {"a": ["\ufffd"]}}),
        (b'"\\\\\\ud800"', "\\\ufffd"),
        (b'"\xed\xa0\x80"', "\ufffd"),
        (b'"\xed\xb8\x80\xed\xa0\xbd"', "\ufffd\ufffd"),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "\U0001f600"),
        (b'"\xed\xa0\xbd\\ude00"', "\ufffd\ufffd"),
    ],
)
def test_a_lone_surrogate_is_replaced_and_logged_once(
    body: bytes, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert decode(body) == value
    [line] = caplog.messages
    assert line == "lone surrogate in a request body, read as U+FFFD"


@given(
    st.text(st.characters(categories=["Cs", "Ll", "Sm", "Cc"]) | st.just("\U0001f600")),
    st.booleans(),
)
def test_lone_surrogates_decode_the_same_escaped_and_as_bytes(text: str, is_ascii: bool) -> None:
    body = json.dumps(text, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert decode(body) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("inner", [b"", b"7", b'"[[["'])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":[', b"]}")])
def test_nesting_beyond_the_limit_is_refused(opening: bytes, closing: bytes, inner: bytes) -> None:
    times = MAX_DEPTH // opening.count(b"[") // (1 + opening.count(b"{"))
    decode(opening * times + inner + closing * times)
    too_deep = opening * times + b"[" + inner + b"]" + closing * times
    assert refusal(too_deep) == "nested more than 64 levels deep"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_unclosed_deep_nesting_is_refused_cheaply(opening: bytes) -> None:
    assert refusal(opening * 1_000_000) == "nested more than 64 levels deep"


@pytest.mark.parametrize("value", [b"0", b'""', b"[]", b"{}", b"null", b'"\\\\\\","'])
def test_more_values_than_the_limit_are_refused(value: bytes) -> None:
    assert refusal(b"[" + b",".join([value] * 200) + b"]", max_values=100) == (
        "more than 100 values"
    )
    decode(b"[" + b",".join([value] * 49) + b"]", max_values=100)


@given(st.text('a,[{"\\', max_size=50), st.integers(1, 60))
def test_brackets_and_commas_in_strings_are_not_counted_as_values(text: str, start: int) -> None:
    body = json.dumps(["a" * start, text * 20, "b"]).encode()
    assert decode(body, max_values=3) == ["a" * start, text * 20, "b"]


def test_a_long_string_of_commas_is_one_value() -> None:
    text = '",\\[{' * 1_000_000
    assert decode(json.dumps([text]).encode(), max_values=1) == [text]
