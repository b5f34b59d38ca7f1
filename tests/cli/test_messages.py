"""The chat's reading of an event stream."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.messages import Call, Ended, Server, Text, Turn, answer, events, lines
from pensieve.errors import RequestError, ServerUnavailableError
from tests.cli.fake_server import delta, message, refuse, serving

CALL = Call("tiny", (Turn("user", "Hi"),), max_tokens=9, temperature=0.0)


def answered(*script: Any, call: Call = CALL) -> list[Text | Ended]:
    with serving(script[0]) as server:
        return list(answer(Server(server.url, "k"), call))


def test_an_answer_is_its_text_and_its_end() -> None:
    assert answered(message("Par", "is", stop_reason="max_tokens")) == [
        Text("Par"),
        Text("is"),
        Ended("max_tokens", 2),
    ]


def test_the_call_says_what_is_asked() -> None:
    call = Call(
        "tiny", (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")), 9, 0.5, "Be brief."
    )
    with serving(message("x")) as server:
        list(answer(Server(server.url, "a-key"), call))
        headers, body = server.calls[0]
    assert headers["x-api-key"] == "a-key"
    assert headers["anthropic-version"] == "2023-06-01"
    assert body == {
        "model": "tiny",
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
    }


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert answered(message("x"))[0] == Text("x")


def test_where_nobody_listens_the_way_to_start_is_told() -> None:
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
def test_a_refusal_is_told_in_the_servers_words(status: int, kind: type, code: int) -> None:
    with pytest.raises(kind) as failure:
        answered(refuse(status, "the model is not loaded yet"))
    assert failure.value.exit_code == code
    assert status == 401 or "the model is not loaded yet" in failure.value.message
    assert status != 401 or "PENSIEVE_API_KEY" in failure.value.hint


def test_an_error_in_mid_stream_ends_the_answer() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "the worker died"}}
    said = []
    with (
        serving([delta("Par"), error]) as server,
        pytest.raises(ServerUnavailableError, match="the worker died"),
    ):
        said.extend(answer(Server(server.url, "k"), CALL))
    assert said == [Text("Par")]


def test_a_stream_that_just_stops_is_no_answer() -> None:
    with pytest.raises(ServerUnavailableError, match="cut off"):
        answered([delta("Par")])


def test_a_line_separator_inside_json_ends_no_line() -> None:
    assert answered(message("a\u2028b\x85c"))[0] == Text("a\u2028b\x85c")


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n")), min_size=1),
    st.lists(st.integers(0, 50)),
)
def test_lines_are_the_same_however_the_bytes_are_cut(whole: list[str], cuts: list[int]) -> None:
    content = "".join(f"{line}\r\n" for line in whole).encode("utf-8", "surrogatepass")
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    chunks = [content[a:b] for a, b in pairwise(edges)]
    expected = [line.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for line in whole]
    assert list(lines(chunks)) == expected


@pytest.mark.parametrize(
    ("stream", "read"),
    [
        (["event: x", 'data: {"a": 1}', ""], [{"a": 1}]),
        (['data:{"a":', "data: 1}", ""], [{"a": 1}]),
        ([": a comment", "", "id: 7", ""], []),
        (['data: {"a": 1}'], []),
        (["data: [1]", ""], [{}]),
    ],
)
def test_events_are_read_as_the_standard_says(stream: list[str], read: list[dict]) -> None:
    assert list(events(stream)) == read


def test_what_is_no_json_is_no_answer() -> None:
    with pytest.raises(ServerUnavailableError):
        list(events(["data: {", ""]))
