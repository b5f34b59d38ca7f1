"""Limits of one request: a request just within each limit is accepted, one beyond it refused."""

import json

import pytest

from pensieve.api.messages.request import MAX_MESSAGES, ApiVersion, MessagesRequest, parse
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.validation import (
    MAX_BLOCKS,
    MAX_DEFERRED_TOOLS,
    MAX_TOOLS,
    validate,
)

VALID = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
TEXT = {"type": "text", "text": "x"}
USE = [
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "t", "name": "t", "input": {}}],
    }
]


def check(**changes: object) -> None:
    validate(parse(MessagesRequest, json.dumps(VALID | changes).encode()), ApiVersion())


def user(*blocks: object) -> list[object]:
    return [{"role": "user", "content": blocks}]


def tools(count: int, *, deferred: int = 0) -> list[object]:
    schema = {"type": "object"}
    return [
        {"name": f"t{index}", "input_schema": schema, "defer_loading": index < deferred}
        for index in range(count)
    ]


def result(count: int) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": "t", "content": [TEXT] * count}


@pytest.mark.parametrize(
    ("within", "beyond", "code"),
    [
        ({"max_tokens": 2**63 - 1}, {"max_tokens": 2**63}, None),
        ({"max_tokens": 0}, {"max_tokens": -1}, None),
        ({"temperature": 2}, {"temperature": 2.001}, None),
        ({"temperature": 0}, {"temperature": -0.001}, None),
        ({"top_p": 1}, {"top_p": 1.001}, None),
        ({"top_k": 0}, {"top_k": -1}, None),
        ({"top_k": 2**63 - 1}, {"top_k": 2**63}, None),
        ({"stop_sequences": ["a"] * 64}, {"stop_sequences": ["a"] * 65}, None),
        ({"stop_sequences": ["a" * 1024]}, {"stop_sequences": ["a" * 1025]}, None),
        ({"tools": tools(MAX_TOOLS)}, {"tools": tools(MAX_TOOLS + 1)}, "limit"),
        (
            {"tools": tools(MAX_TOOLS + 9, deferred=9)},
            {"tools": tools(MAX_TOOLS + 9, deferred=8)},
            "limit",
        ),
        (
            {"tools": tools(MAX_DEFERRED_TOOLS, deferred=MAX_DEFERRED_TOOLS - 1)},
            {"tools": tools(MAX_DEFERRED_TOOLS + 1, deferred=MAX_DEFERRED_TOOLS)},
            "limit",
        ),
        (
            {"messages": VALID["messages"] * MAX_MESSAGES},
            {"messages": VALID["messages"] * (MAX_MESSAGES + 1)},
            None,
        ),
        (
            {"messages": user(*[TEXT] * MAX_BLOCKS)},
            {"messages": user(*[TEXT] * (MAX_BLOCKS + 1))},
            None,
        ),
        (
            {"messages": USE + user(result(MAX_BLOCKS // 2), *[TEXT] * (MAX_BLOCKS // 2 - 2))},
            {"messages": USE + user(result(MAX_BLOCKS // 2), *[TEXT] * (MAX_BLOCKS // 2 - 1))},
            None,
        ),
    ],
)
def test_a_request_beyond_a_limit_is_refused(
    within: dict[str, object], beyond: dict[str, object], code: str | None
) -> None:
    check(**within)
    with pytest.raises(InvalidRequestError, match=r"at most|less than|greater than") as caught:
        check(**beyond)
    assert caught.value.error_code == (code and "available_tools_limit_exceeded")
