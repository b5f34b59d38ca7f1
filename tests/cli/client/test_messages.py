"""The chat's parsing of an event stream."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.message import Usage
from pensieve.cli.client.connection import Server
from pensieve.cli.client.messages import (
    Call,
    Event,
    StreamEnd,
    Text,
    Thought,
    Turn,
    Waiting,
    answer,
    count_tokens,
)
from pensieve.cli.client.server_identity import identify
from pensieve.cli.client.sse import event_data, lines
from pensieve.errors import (
    PromptTooLongError,
    PromptUnprocessableError,
    RequestError,
    ServerUnavailableError,
)
from pensieve.settings.resolve import variables_set
from tests.cli.fake_server import delta, message, refuse, serving
from tests.cli.program import OWN_KEY

CALL = Call("tiny", (Turn("user", "Hi"),), max_tokens=9, temperature=0.0)


def answered(*script: Any, call: Call = CALL) -> list[Event]:
    with serving(script[0]) as server:
        return without_pings(list(answer(Server(server.url, "k"), call)))


def without_pings(events_: list[Event]) -> list[Event]:
    """Leave out the pings."""
    return [event for event in events_ if not isinstance(event, Waiting)]


USAGE = Usage(input_tokens=3, cache_read_input_tokens=4, output_tokens=2)


def test_an_answer_is_its_text_and_its_end() -> None:
    *texts, ended = answered(message("Par", "is", stop_reason="max_tokens"))
    assert texts == [Text("Par"), Text("is")]
    assert ended == StreamEnd("max_tokens", USAGE, "tiny")
    assert (ended.prompt_tokens, ended.output_tokens) == (7, 2)


def test_a_thought_comes_before_the_answer_and_its_signature_with_the_end() -> None:
    *pieces, ended = answered(message("Paris", thoughts=["Let me ", "see."]))
    assert pieces == [Thought(""), Thought("Let me "), Thought("see."), Text("Paris")]
    assert ended.signature == "signed"


def test_thought_is_requested_and_sent_back_unchanged() -> None:
    turns = (
        Turn("user", "a"),
        Turn("assistant", "b", "Hm.", "signed"),
        Turn("user", "c"),
        Turn("assistant", "d", "broken off"),
        Turn("user", "e"),
    )
    shown = body_of(Call("tiny", turns, 9, 0.0, thinking="shown"))
    assert shown["thinking"] == {"type": "adaptive"}
    assert [turn["content"] for turn in shown["messages"]] == [
        [{"type": "text", "text": "a"}],
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "signed"},
            {"type": "text", "text": "b"},
        ],
        *([{"type": "text", "text": text}] for text in "cde"),
    ]
    hidden = body_of(Call("tiny", turns, 9, 0.0, thinking="hidden"))
    assert hidden["thinking"] == {"type": "adaptive", "display": "omitted"}
    assert "thinking" not in body_of(Call("tiny", turns, 9, 0.0))


def body_of(call: Call) -> dict[str, Any]:
    return json.loads(call.as_json())


def test_typed_bytes_that_are_not_utf8_are_replaced() -> None:
    (turn,) = body_of(Call("tiny", (Turn("user", "a\udcff"),), 9, system="\udcff"))["messages"]
    assert turn["content"] == [{"type": "text", "text": "a?"}]


def test_identify_returns_model_and_thinking() -> None:
    with serving() as server:
        plain = identify(Server(server.url, OWN_KEY))
        server.thinks = True
        thinking = identify(Server(server.url, OWN_KEY))
    assert (plain.thinks, thinking.thinks) == (False, True)
    assert (plain.health.model, plain.health.context_tokens) == ("tiny", 8192)


def test_a_prompts_tokens_are_counted() -> None:
    with serving() as server:
        assert count_tokens(Server(server.url, "k"), CALL) == 1


def test_too_long_prompt_raises_its_own_error() -> None:
    with pytest.raises(PromptTooLongError) as failure:
        answered(refuse(400, "prompt is too long: 9000 tokens > 8192 maximum"))
    assert (failure.value.prompt_tokens, failure.value.context_tokens) == (9000, 8192)


def test_unprocessable_prompt_raises_its_own_error() -> None:
    refused = PromptUnprocessableError(2, prompt_tokens=9000, done_tokens=4000)
    with pytest.raises(PromptUnprocessableError) as failure:
        answered(refuse(400, refused.message))
    assert vars(failure.value) == vars(refused)


def test_unknown_events_blocks_and_deltas_are_ignored() -> None:
    new = [
        {"type": "message_mood", "mood": "good"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "poem"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "poem_delta", "line": "x"}},
    ]
    assert answered([*new, *message("x")])[0] == Text("x")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}},
        {"type": "message_start"},
        delta("\ud800"),
    ],
)
def test_event_of_another_shape_is_an_error(event: dict[str, object]) -> None:
    with pytest.raises(ServerUnavailableError, match="cannot be read"):
        answered([{"type": "ping"}, event])


def test_call_is_serialized() -> None:
    call = Call(
        "tiny", (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")), 9, 0.5, "Be brief."
    )
    with serving(message("x")) as server:
        list(answer(Server(server.url, "a-key"), call))
        headers, body = server.calls[0]
    assert headers["x-api-key"] == "a-key"
    assert headers["content-type"] == "application/json"
    assert headers["anthropic-version"] == "2023-06-01"
    assert body == {
        "model": "tiny",
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
        ],
    }


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert answered(message("x"))[0] == Text("x")


def test_without_a_listener_the_start_command_is_shown() -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(ServerUnavailableError, match=url) as failure:
        list(answer(Server(url, "k"), CALL))
    assert failure.value.exit_code == 69
    assert "pensieve start" in (failure.value.hint or "")


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, RequestError, 1),
        (401, RequestError, 1),
        (404, RequestError, 1),
        (503, ServerUnavailableError, 69),
        (529, ServerUnavailableError, 69),
    ],
)
def test_refusal_shows_the_servers_message(status: int, kind: type, code: int) -> None:
    with pytest.raises(kind) as failure:
        answered(refuse(status, "the model is not loaded yet"))
    assert failure.value.exit_code == code
    assert status == 401 or "the model is not loaded yet" in failure.value.message
    assert status != 401 or "PENSIEVE_API_KEY" in failure.value.hint


def test_an_error_in_mid_stream_ends_the_answer() -> None:
    died = {"type": "overloaded_error", "message": "the worker died"}
    error = {"type": "error", "error": died, "request_id": "req_1"}
    came = []
    with (
        serving([delta("Par"), error]) as server,
        pytest.raises(ServerUnavailableError, match="the worker died"),
    ):
        came.extend(answer(Server(server.url, "k"), CALL))
    assert came == [Text("Par")]


def test_stream_without_an_end_is_an_error() -> None:
    with pytest.raises(ServerUnavailableError, match="ended before the answer"):
        answered([delta("Par")])


def test_a_line_separator_inside_json_ends_no_line() -> None:
    assert answered(message("a\u2028b\x85c"))[0] == Text("a\u2028b\x85c")


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n")), min_size=1),
    st.lists(st.integers(0, 50)),
)
def test_lines_do_not_depend_on_chunk_boundaries(whole: list[str], cuts: list[int]) -> None:
    content = "".join(f"{line}\r\n" for line in whole).encode("utf-8", "surrogatepass")
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    chunks = [content[a:b] for a, b in pairwise(edges)]
    expected = [line.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for line in whole]
    assert list(lines(chunks)) == expected


@pytest.mark.parametrize(
    ("stream", "read"),
    [
        (["event: x", 'data: {"a": 1}', ""], ['{"a": 1}']),
        (['data:{"a":', "data: 1}", ""], ['{"a":\n1}']),
        ([": a comment", "", "id: 7", ""], []),
        (['data: {"a": 1}'], []),
    ],
)
def test_events_are_parsed_by_the_standard(stream: list[str], read: list[str]) -> None:
    assert list(event_data(stream)) == read


@pytest.mark.parametrize(
    "proxy",
    [
        "http://127.0.0.1:1",
        "socks5h://127.0.0.1:1",
        "http://u:p@proxy:port",
        "://",
        "\udc80",
        "none",
    ],
)
def test_proxy_variables_do_not_affect_our_server(proxy: str) -> None:
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    with serving() as server, variables_set(dict.fromkeys(names, proxy)):
        assert count_tokens(Server(server.url, "k"), CALL) == 1
        assert identify(Server(server.url, OWN_KEY)).health.model == "tiny"
