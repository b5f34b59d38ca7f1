"""The body of a text completion, and what its answer is made of."""

from typing import Any

import pytest

from pensieve.api.messages.request import decode
from pensieve.errors import InvalidRequestError
from pensieve.openai.text_completion import TextCompletionRequest, TextFold
from tests.openai.test_chat_chunks import events_of, scored_text


def request(**fields: object) -> TextCompletionRequest:
    made = decode(TextCompletionRequest, {"model": "m", "prompt": "a"} | fields)
    made.check_supported()
    return made


@pytest.mark.parametrize("prompt", ["x", ["x"]])
def test_prompt_is_one_text(prompt: object) -> None:
    assert request(prompt=prompt).prompt == "x"


@pytest.mark.parametrize(("sent", "limit"), [(None, 16), (5, 5), (-1, None)])
def test_limit_is_openais_unless_given(sent: int | None, limit: int | None) -> None:
    assert request(max_tokens=sent).max_tokens == limit
    assert request().max_tokens == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ["a", "b"]}, "prompt: Input should be a valid string"),
        ({"prompt": [1, 2]}, "prompt: Input should be a valid string"),
        ({"prompt": None}, "prompt: Input should be a valid string"),
        ({"suffix": 5}, "suffix: Input should be a valid string"),
        ({"echo": True}, "echo: This server does not support it"),
        ({"best_of": 2}, "best_of: This server does not support it"),
        ({"best_of": 2, "n": 3}, "best_of: This server does not support it"),
        ({"logprobs": 6}, "logprobs: Input should be less than or equal to 5"),
        ({"n": 9}, "n: Input should be less than or equal to 8"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    assert caught.value.message == message


def fold(*, includes_usage: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    answer = TextFold(9, includes_usage=includes_usage)
    pieces = answer.feed(events_of([("text", ["a", "b"])], "max_tokens"))
    return [piece.model_dump() for piece in pieces], answer.completion.model_dump()


def test_pieces_add_up_to_the_whole_text() -> None:
    pieces, whole = fold()
    head = {"id": "cmpl-01x", "object": "text_completion", "created": 9, "model": "m"}
    assert all(head.items() <= one.items() and "usage" not in one for one in pieces)
    choices = [one["choices"][0] for one in pieces]
    assert [(one["text"], one["finish_reason"]) for one in choices] == [
        ("a", None),
        ("b", None),
        ("", "length"),
    ]
    assert head.items() <= whole.items()
    assert whole["choices"] == (
        {"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"},
    )
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (10, 7)


def test_usage_is_the_last_piece_if_asked_for() -> None:
    *pieces, last = fold(includes_usage=True)[0]
    assert not any("usage" in piece for piece in pieces)
    assert (last["choices"], last["usage"]["total_tokens"]) == ((), 17)


def test_best_of_is_the_number_of_answers_or_absent() -> None:
    assert request(best_of=2, n=2).n == 2
    assert request(best_of=1).n == 1


def test_logprobs_are_lists_with_offsets_in_the_whole_text() -> None:
    answer = TextFold(9, includes_usage=False)
    events = scored_text([("éa", [b"\xc3", b"\xa9a"]), ("bc", [b"b", b"c"])])
    pieces = [piece.model_dump() for piece in answer.feed(events)]
    first, second, last = (one["choices"][0]["logprobs"] for one in pieces)
    assert first == {
        "tokens": ("\\xc3", "\\xa9a"),
        "token_logprobs": (-0.5, -0.5),
        "top_logprobs": ({"x": -0.25, "\\xc3": -0.5}, {"x": -0.25, "\\xa9a": -0.5}),
        "text_offset": (0, 0),
    }
    assert (second["tokens"], second["text_offset"]) == (("b", "c"), (2, 3))
    assert last is None
    (whole,) = answer.completion.choices
    assert whole.logprobs is not None
    assert whole.logprobs.tokens == ("\\xc3", "\\xa9a", "b", "c")
    assert whole.logprobs.text_offset == (0, 0, 2, 3)


def test_several_answers_have_one_usage() -> None:
    answer = TextFold(9, includes_usage=True, choices=2)
    first = answer.feed(events_of([("text", ["a"])]), 1)
    assert [piece.choices[0].index for piece in first] == [1, 1]
    assert not answer.is_ended
    *second, usage = answer.feed(events_of([("text", ["b"])]), 0)
    assert [piece.choices[0].index for piece in second] == [0, 0]
    assert usage.usage == answer.completion.usage
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (10, 14)
    assert [(one.index, one.text) for one in answer.completion.choices] == [(0, "b"), (1, "a")]
