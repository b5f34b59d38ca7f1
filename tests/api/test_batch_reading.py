"""Reading a batch request by request accepts and refuses the same as reading it whole."""

import json
import mmap
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pensieve.api.batch_reading import MAX_ENTRY_BYTES, MAX_REMAINDER_BYTES, params_of, read_batch
from pensieve.api.batches import CreateBatchRequest
from pensieve.api.json_body import decode
from pensieve.errors import InvalidRequestError, RequestTooLargeError

ENTRY = {"custom_id": "a", "params": {"x": [1, {"y": '"],}{[\\'}]}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
requests = st.lists(
    st.fixed_dictionaries(
        {
            "custom_id": st.text("ab", min_size=1, max_size=8),
            "params": st.dictionaries(st.text(max_size=3), json_values, max_size=3),
        }
    )
    | json_values,
    max_size=4,
)
bodies = st.dictionaries(
    st.sampled_from(["requests", "others", "", '"', "a,b", "]"]),
    requests | json_values,
    max_size=4,
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])


def read_whole(body: bytes) -> dict[str, Any] | None:
    """Return the params by custom id, or None if the body is refused."""
    try:
        batch = CreateBatchRequest.model_validate(decode(body))
    except (InvalidRequestError, ValidationError):
        return None
    params = {entry.custom_id: entry.params for entry in batch.requests}
    return params if len(params) == len(batch.requests) else None


def read(body: bytes | mmap.mmap) -> dict[str, Any] | None:
    try:
        return {
            entry.custom_id: decode(params_of(body[entry.start : entry.start + entry.size]))
            for entry in read_batch(body)
        }
    except InvalidRequestError:
        return None


@settings(max_examples=300)
@given(bodies, separators, st.booleans())
def test_a_streamed_batch_reads_like_a_whole_one(
    fields: dict[str, Any], by: tuple[str, str], is_ascii: bool
) -> None:
    body = json.dumps(fields, separators=by, ensure_ascii=is_ascii).encode()
    assert read(body) == read_whole(body)


@settings(max_examples=300)
@given(st.data())
def test_an_altered_body_reads_like_a_whole_one(data: st.DataObject) -> None:
    body = bytearray(json.dumps({"a": 1, "requests": [ENTRY, ENTRY | {"custom_id": "b"}]}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"a"])
        )
        body[index : index + data.draw(st.integers(0, 2))] = piece
    assert read(bytes(body)) == read_whole(bytes(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"requests": [%s',
        b'{"requests": [%s,]}',
        b'{"requests": [,%s]}',
        b'{"requests": [%s]}}',
        b'[{"requests": [%s]}]',
        b'{"requests": [%s], "requests": [%s]}',
        b'{"requests": [%s]]',
        b'{"x": {"requests": [%s]}}',
        b'{"requests" [%s]}',
        b'{"requests": [%s], "x": "}',
        b'{"requests": [%s "}',
        b'{"requests": [%s]} {}',
        b'{"requests": {"0": %s}}',
        b'"requests": [%s]',
        b'\xef\xbb\xbf{"requests": [%s]}',
        b'{"requests": [%s], "x": NaN}',
    ],
)
def test_an_invalid_batch_is_refused(body: bytes) -> None:
    whole = body.replace(b"%s", json.dumps(ENTRY).encode())
    assert read_whole(whole) is None
    with pytest.raises(InvalidRequestError):
        list(read_batch(whole))


@pytest.mark.parametrize("key", ['"requests"', '"\\u0072equests"', '"request\\u0073"'])
def test_the_requests_field_is_found_with_an_escaped_name(key: str) -> None:
    body = f"{{{key} : [ {json.dumps(ENTRY)} ] }}".encode()
    assert read(body) == read_whole(body) != None  # noqa: E711 -- refused by neither


def test_a_mapped_file_reads_like_bytes() -> None:
    body = json.dumps({"requests": [ENTRY]}).encode()
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert read(mapped) == read_whole(body) == {"a": ENTRY["params"]}


def test_a_lone_surrogate_in_a_batch_is_replaced() -> None:
    body = b'{"requests": [{"custom_id": "a", "params": {"x": "\\ud800"}}]}'
    assert read(body) == {"a": {"x": "\ufffd"}}


def test_an_oversized_request_or_remainder_is_refused() -> None:
    text = b" " * (MAX_ENTRY_BYTES + 1)
    with pytest.raises(RequestTooLargeError):
        list(read_batch(b'{"requests": [%s{}]}' % text))
    with pytest.raises(InvalidRequestError, match="other fields exceed"):
        list(read_batch(b'{"requests": [], "x": "%s"}' % text[: MAX_REMAINDER_BYTES + 1]))


def test_an_unterminated_string_takes_linear_time() -> None:
    # Scanning on from each quote for an end would take hours.
    with pytest.raises(InvalidRequestError, match="does not end"):
        list(read_batch(b'{"requests": ["' + b'\\"' * 2_000_000))
