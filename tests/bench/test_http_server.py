"""Streams as bytes with times: tokens, rates, errors; against a fake server on loopback."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pensieve.bench.answers import Answer, Ask, total_rate
from pensieve.bench.http_server import HttpServed, Piece, answer_of
from pensieve.daemon.server_record import Address, own_record
from pensieve.dialects.dialect import ThinkingForm
from pensieve.dialects.families import plain
from pensieve.errors import RequestError, ServerUnavailableError
from tests.cli.fake_server import FakeServer, delta, endlessly, message, refuse, serving
from tests.cli.program import OWN_KEY
from tests.clients.serving import CachingEngine
from tests.clients.serving import serving as server_with
from tests.server.serving import KEY

# Its template cannot turn thinking off.
THINKING = replace(plain.DIALECT, thinking=ThinkingForm())
USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 30,
    "output_tokens": 21,
}
THOUGHT = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "thinking_delta", "thinking": "hm"},
}
END = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": USAGE}


def piece(at_s: float, *events: object) -> Piece:
    return at_s, "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def served_by(server: FakeServer) -> HttpServed:
    return HttpServed(own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu")), OWN_KEY)


def test_stream_gives_first_token_rates_and_counts() -> None:
    answer = answer_of([piece(1.0, delta("a")), piece(2.0, delta("bc")), piece(5.0, END)])
    assert answer == Answer((1.0, 2.0), 5.0, 240, 30, 21)
    assert answer.first_token_s == 1.0
    assert answer.prefill_rate == 210.0
    assert answer.decode_rate == 20 / 4.0


def test_thought_counts_as_the_first_token() -> None:
    answer = answer_of([piece(1.0, THOUGHT), piece(3.0, delta("a")), piece(5.0, END)])
    assert answer.first_token_s == 1.0


def test_event_that_is_cut_counts_when_it_is_complete() -> None:
    at_s, whole = piece(1.0, delta("a"))
    answer = answer_of([(at_s, whole[:40]), (2.0, whole[40:]), piece(5.0, END)])
    assert answer.first_token_s == 2.0


def test_stream_without_its_end_is_an_error() -> None:
    with pytest.raises(ServerUnavailableError, match="ended early"):
        answer_of([piece(1.0, delta("a"))])


def test_error_event_is_raised_with_its_message() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "the worker died"}}
    with pytest.raises(ServerUnavailableError, match="the worker died"):
        answer_of([piece(1.0, delta("a")), piece(2.0, error)])


def test_rate_of_streams_counts_only_while_all_decode() -> None:
    early = Answer((1.0,), 11.0, 10, 0, 101)
    late = Answer((3.0,), 8.0, 10, 0, 51)
    assert total_rate([early, late]) == pytest.approx(20.0)


def test_streams_that_do_not_overlap_have_no_rate() -> None:
    assert total_rate([Answer((1.0,), 2.0, 1, 0, 30), Answer((3.0,), 4.0, 1, 0, 30)]) is None


def test_few_tokens_have_no_rate() -> None:
    assert Answer((1.0,), 2.0, 1, 0, 6).decode_rate is None
    assert Answer((1.0,), 2.0, 1, 0, 7).decode_rate == 6.0


def test_request_is_streamed_without_thinking_and_with_the_key() -> None:
    with serving(message(*"abc")) as server:
        (answer,) = served_by(server).answers([Ask("Hello", 9, 0.5)], 10.0)
        ((headers, body),) = server.calls
    assert headers["x-api-key"] == OWN_KEY
    assert body == {
        "model": "tiny",
        "max_tokens": 9,
        "temperature": 0.5,
        "thinking": {"type": "disabled"},
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (7, 4, 3)
    assert len(answer.arrivals_s) == 3


def test_four_requests_are_answered_together() -> None:
    with serving() as server:
        server.answer_to = lambda _: message("a", "b")
        answers = served_by(server).answers([Ask(f"{n}", 2) for n in range(4)], 10.0)
    assert [answer.output_tokens for answer in answers] == [2] * 4


def test_late_answer_is_given_up() -> None:
    with serving(endlessly("a")) as server:
        with pytest.raises(TimeoutError):
            served_by(server).answers([Ask("Hello", 9)], 0.2)
        assert server.has_lost_client.wait(10)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestError), (401, RequestError), (529, ServerUnavailableError)]
)
def test_refusal_is_raised_with_its_message(status: int, kind: type[Exception]) -> None:
    with (
        serving(refuse(status, "not today")) as server,
        pytest.raises(kind, match="not today"),
    ):
        served_by(server).answers([Ask("Hello", 9)], 10.0)


def test_server_that_is_gone_is_unavailable() -> None:
    with serving() as server:
        served = served_by(server)
    with pytest.raises(ServerUnavailableError, match="nothing listens there"):
        served.answers([Ask("Hello", 9)], 10.0)


def test_tokens_and_health_are_the_servers() -> None:
    with serving() as server:
        served = served_by(server)
        server.tokens = lambda body: len(str(body["messages"][0]["content"]).split())
        assert served.count_tokens("one two three") == 3
        assert served.health().context_tokens == 8192


def test_real_server_answers_and_reports_its_cache(tmp_path: Path) -> None:
    with server_with(CachingEngine("It rained all night."), tmp_path) as url:  # type: ignore[arg-type]
        port = urlsplit(url).port
        assert port
        served = HttpServed(own_record(Address("127.0.0.1", port, "bytes", "cpu")), KEY)
        cold, warm = (served.answers([Ask("Tell me.", 9, 1.0)], 30.0)[0] for _ in range(2))
        counted = served.count_tokens("Tell me.")
        health = served.health()
    assert cold.prompt_tokens == warm.prompt_tokens == counted
    assert (cold.cached_tokens, warm.cached_tokens) == (0, counted - 1)
    assert cold.output_tokens == warm.output_tokens == 9
    assert 0 < cold.first_token_s <= cold.end_s
    assert (health.model, health.in_flight) == ("bytes", 0)


def test_thought_of_a_real_server_counts_as_tokens(tmp_path: Path) -> None:
    engine = CachingEngine("<think>Let me see.</think>Yes.")
    with server_with(engine, tmp_path, dialect=THINKING) as url:  # type: ignore[arg-type]
        port = urlsplit(url).port
        assert port
        served = HttpServed(own_record(Address("127.0.0.1", port, "bytes", "cpu")), KEY)
        (answer,) = served.answers([Ask("Well?", 50)], 30.0)
    assert answer.output_tokens == len("<think>Let me see.</think>Yes.") + 1
    assert len(answer.arrivals_s) >= len("Let me see.Yes.") / 2
