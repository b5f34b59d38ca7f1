"""Nearly valid requests: valid bodies with parts dropped, doubled, replaced, nested or damaged."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

USER = {"role": "user", "content": "hello"}
TOOL = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"place": "Oslo"}}
RESULT = {
    "type": "tool_result",
    "tool_use_id": "toolu_1",
    "content": [{"type": "text", "text": "cold"}, {"type": "tool_reference", "tool_name": "x"}],
}
DOCUMENTS = [
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}},
    {"type": "document", "source": {"type": "content", "content": "abc"}, "title": "t"},
    {"type": "document", "source": {"type": "file", "file_id": "file_01"}},
    {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
    },
    {
        "type": "search_result",
        "source": "s",
        "title": "t",
        "content": [{"type": "text", "text": "x"}],
    },
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/latest"}},
]
THOUGHTS = [
    {"type": "thinking", "thinking": "hm", "signature": "abc"},
    {"type": "redacted_thinking", "data": "abc"},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {}},
    {"type": "compaction", "content": "a summary"},
    {"type": "text", "text": "so", "citations": None},
]
CALL = {"model": "m", "max_tokens": 20, "messages": [USER]}


def with_result(*parts: object) -> dict[str, Any]:
    """Return a conversation with a tool result of `parts`."""
    call = {"role": "assistant", "content": [USE]}
    return CALL | {
        "messages": [USER, call, {"role": "user", "content": [RESULT | {"content": list(parts)}]}]
    }


VALID: list[dict[str, Any]] = [
    CALL,
    CALL | {"stream": True, "system": "Be kind.", "stop_sequences": ["END"], "temperature": 0.5},
    CALL | {"messages": [USER, {"role": "system", "content": "now"}], "metadata": {"user_id": "u"}},
    CALL
    | {"messages": [USER, {"role": "assistant", "content": "Sure, "}], "top_p": 0.9, "top_k": 5},
    CALL
    | {"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}], "tool_choice": {"type": "auto"}},
    CALL
    | {
        "tools": [TOOL, TOOL | {"name": "later", "defer_loading": True}],
        "messages": [
            USER,
            {"role": "assistant", "content": [*THOUGHTS, USE]},
            {"role": "user", "content": [RESULT, {"type": "text", "text": "and?"}]},
        ],
    },
    CALL | {"messages": [{"role": "user", "content": [*DOCUMENTS[:2], DOCUMENTS[3]]}]},
    CALL | {"messages": [{"role": "user", "content": DOCUMENTS}]},
    *(with_result(part) for part in DOCUMENTS),
    with_result(*DOCUMENTS[:2], DOCUMENTS[3]),
    CALL
    | {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": [THOUGHTS[4], {"type": "mcp_tool_result", "content": DOCUMENTS[:4]}],
            },
            USER,
        ]
    },
    CALL | {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
    CALL | {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
    CALL | {"output_config": {"format": {"type": "json_schema", "schema": TOOL["input_schema"]}}},
    CALL | {"max_tokens": 0, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    CALL | {"thread": {"type": "create"}},
    CALL | {"thread": {"type": "continue", "previous_message_id": "msg_01x"}},
    CALL | {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    CALL | {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
    CALL
    | {
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: a"},
            {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
        ]
    },
]

ODD_TEXTS = [
    *[
        "",
        " ",
        "\n",
        "\0",
        "\x1b[31m",
        "\u2028",
        "\ud800",
        "\udfff\ud800",
        "\ufdd0",
        "\ufdd1" + "0",
    ],
    *["\ufeff", "\uffff", "\U0010ffff", "\u202eabc", "e\u0301" * 50, "👩‍👩‍👧", "x" * 5000],
    *[
        "<|end|>",
        "<|user|>",
        "<|im_start|>system",
        "</s>",
        "\ue000",
        "{{ 7*7 }}",
        "{% raw %}",
        "%s%n",
    ],
    *["../../etc/passwd", "file:///etc/passwd", "http://169.254.169.254/", "NaN", "null", "'", '"'],
    *["user", "assistant", "system", "text", "tool_use", "tool_result", "create", "msg_01x"],
]
ODD_NUMBERS = [
    *[0, -0.0, -1, 1, 2, 0.5, 1e308, -1e308, 5e-324, 10**18, 10**19 - 1, -(10**19) + 1, 2**31],
    *[
        2**53 + 1,
        2**63 - 1,
        2**63,
        2**64,
        10**20,
        10**400,
        float("nan"),
        float("inf"),
        -float("inf"),
    ],
]


def _nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


odd_values = st.one_of(
    st.sampled_from([None, True, False, [], {}, [[]], [None], {"": None}, {"type": "text"}]),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(ODD_NUMBERS),
    st.text(max_size=20),
    st.integers(-(2**70), 2**70),
    st.sampled_from([30, 60, 70, 500]).map(_nested),
    st.sampled_from([USER, TOOL, USE, RESULT, *DOCUMENTS, *THOUGHTS]),
    st.sampled_from([USER, TOOL, USE, RESULT]).map(lambda value: [value] * 3),
).map(copy.deepcopy)
odd_names = st.sampled_from(
    [*ODD_TEXTS, "type", "text", "content", "source", "thread", "__class__"]
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with each of its keys."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


@st.composite
def mutated(draw: st.DrawFn, valid: list[dict[str, Any]]) -> Any:
    """Draw a valid body with one to three changes."""
    body = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        if places := list(_places(body)):
            _change(draw, *draw(st.sampled_from(places)))
    return body


def _change(draw: st.DrawFn, container: Any, key: Any) -> None:
    match draw(st.sampled_from(["drop", "replace", "replace", "double", "rename", "wrap", "add"])):
        case "drop":
            del container[key]
        case "replace":
            container[key] = draw(odd_values)
        case "double" if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        case "rename" if isinstance(container, dict):
            container[draw(odd_names)] = container.pop(key)
        case "wrap":
            container[key] = draw(st.sampled_from([[container[key]], {"type": container[key]}]))
        case _ if isinstance(container, dict):
            container[draw(odd_names)] = draw(odd_values)
        case _:
            container.append(draw(odd_values))


def dumps_lenient(value: Any) -> bytes:
    """Return JSON as careless clients write it, with NaN and surrogates."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def bodies_of(valid: list[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    return mutated(valid).map(dumps_lenient) | mutated(valid).map(
        lambda value: json.dumps(value).encode()
    )


bodies = bodies_of(VALID)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a body with bytes removed, doubled or overwritten."""
    body = bytearray(dumps_lenient(draw(st.sampled_from(VALID))))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 20)))
        piece = bytes(body[start:end])
        body[start:end] = draw(
            st.sampled_from(
                [b"", piece * 2, b'"', b"\\", b"{", b"]", b",", b"\\ud800", b"\xff", b"\0"]
            )
            | st.binary(max_size=6)
        )
    return bytes(body)
