"""Validation of a batch at its creation, and of its requests when they are processed."""

import json

import pytest

from pensieve.api.batch_reading import LocatedEntry, params_of, read_batch
from pensieve.api.batches import BatchedRequest
from pensieve.api.messages.request import parse
from pensieve.errors import InvalidRequestError

CALL = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def read(body: object) -> list[LocatedEntry]:
    return list(read_batch(json.dumps(body).encode()))


def refused(body: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        read(body)
    return caught.value.message


def entry(custom_id: object = "a", params: object = CALL) -> dict[str, object]:
    return {"custom_id": custom_id, "params": params}


def test_params_of_a_new_batch_are_not_validated() -> None:
    (only,) = read({"requests": [entry(params={"anything": 1})]})
    assert only.custom_id == "a"


@pytest.mark.parametrize("text", [b"", b'{"custom_id": "a", "par', b"[]", b"{}", b"\xff"])
def test_params_of_a_damaged_entry_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        params_of(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "requests: Field required"),
        ({"requests": []}, "requests: List should have at least 1 item after validation, not 0"),
        ({"requests": "x"}, "requests: Input should be a valid list"),
        ({"requests": ["x"]}, "requests.0: Input should be an object"),
        ({"requests": [{"params": {}}]}, "requests.0.custom_id: Field required"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params: Field required"),
        (
            {"requests": [entry("a" * 65)]},
            "requests.0.custom_id: String should have at most 64 characters",
        ),
        (
            {"requests": [entry("a b")]},
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        (
            {"requests": [entry("a"), entry("a")]},
            "requests: each custom_id must be unique, 'a' is not",
        ),
    ],
)
def test_an_invalid_batch_is_refused_with_its_path(body: object, message: str) -> None:
    assert refused(body) == message


@pytest.mark.parametrize("custom_id", ["a\n", "é", "a/b", "", "a.b"])
def test_a_custom_id_with_special_characters_is_refused(custom_id: str) -> None:
    assert refused({"requests": [entry(custom_id)]}).startswith(
        "requests.0.custom_id: String should"
    )


def test_a_batch_of_more_than_a_hundred_thousand_requests_is_refused() -> None:
    requests = [entry(str(number), {}) for number in range(100_001)]
    assert "at most 100000 items" in refused({"requests": requests})
    assert len(read({"requests": requests[1:]})) == 100_000


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"stream": True}, "stream: Streaming is not supported in a message batch"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        (
            {"thread": {"type": "create"}},
            "thread: Message threads are not supported in a message batch",
        ),
        ({"speed": "fast"}, "speed: This field is not supported in a message batch"),
        ({"messages": None}, "messages: Input should be a valid list"),
    ],
)
def test_options_that_a_batch_does_not_support_are_refused(
    extra: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(BatchedRequest, json.dumps(CALL | extra).encode())
    assert caught.value.message == message


def test_an_ordinary_batched_request_is_accepted() -> None:
    call = parse(BatchedRequest, json.dumps(CALL | {"stream": False, "speed": None}).encode())
    assert (call.max_tokens, call.stream) == (5, False)
