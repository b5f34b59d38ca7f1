"""Limits and stop sequences as clients of several servers write them."""

import pytest

from pensieve.api.messages.request import decode
from pensieve.openai.chat_request import ChatRequest
from pensieve.openai.conversation import conversation_of

MESSAGES = [{"role": "user", "content": "hi"}]


def request(**fields: object) -> ChatRequest:
    return decode(ChatRequest, {"messages": MESSAGES, **fields})


@pytest.mark.parametrize(("sent", "limit"), [(1, 1), (7, 7), (-1, None), (None, None)])
def test_limit_of_minus_one_is_none(sent: int | None, limit: int | None) -> None:
    assert request(max_tokens=sent).max_tokens == limit


@pytest.mark.parametrize(
    ("sent", "seed"),
    [
        (5, 5),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (2**63, -(2**63)),
        (2**64 - 1, -1),
        (-(2**63) - 1, 2**63 - 1),
        (10**4000, 10**4000 % 2**64),
    ],
)
def test_seed_is_folded_to_64_bits(sent: int, seed: int) -> None:
    assert request(seed=sent).seed == seed


@pytest.mark.parametrize(
    ("sent", "stop"),
    [
        (None, ()),
        ("", ()),
        ("\n", ("\n",)),
        (["a", "", "b"], ("a", "b")),
        (["x"] * 64 + [""], ("x",) * 64),
    ],
)
def test_stop_is_a_text_or_several_without_empty_ones(sent: object, stop: tuple[str, ...]) -> None:
    assert request(stop=sent).stop == stop


def test_values_that_ask_for_nothing_more_are_accepted() -> None:
    fields = {"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}}
    asked = conversation_of(request(modalities=["text"], **fields))
    assert asked == conversation_of(request())
