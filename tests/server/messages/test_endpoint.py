"""`POST /v1/messages` in memory: answers, streams, errors before and after the first byte."""

import gc
import json
import logging
import re
import tracemalloc
import weakref
from functools import partial
from typing import ClassVar

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.engine.generation import (
    DraftCounts,
    Drafted,
    EngineHealth,
    Finished,
    Prefilled,
    SourceCounts,
    SpeculationState,
    Started,
    Token,
)
from pensieve.errors import (
    EngineBusyError,
    EngineError,
    EngineFailedError,
    GrammarError,
    InvalidRequestError,
    LethalRequestError,
    PromptTooLongError,
    PromptUnprocessableError,
    WorkerDiedError,
)
from pensieve.logs import OneLine
from pensieve.server.app import AppParts
from pensieve.server.http.event_stream import PingInterval
from pensieve.server.middleware.request_line import redact_path
from tests.fuzz.examples import EXAMPLES
from tests.server.grammar import check_grammar
from tests.server.serving import CALL, app_of, in_memory, kinds, stream_by_hand, stream_events
from tests.support.fakes import ByteTokenizer, RustPanic, ScriptedEngine, says

pytestmark = pytest.mark.anyio
# Requests with a secret in each, searched for in the log; a thousand in a long run.
REQUESTS = EXAMPLES or 60

GRAMMAR = ["message_start", "ping", "content_block_start", "content_block_delta"]


async def test_answer_is_a_whole_message_with_the_requested_model_name() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hello!", cached_tokens=3)]))) as client:
        response = await client.post("/v1/messages", json=CALL)
    message = response.json()
    assert response.status_code == 200
    assert message["content"] == [{"type": "text", "text": "Hello!", "citations": None}]
    assert (message["model"], message["stop_reason"]) == ("any", "end_turn")
    assert message["usage"]["output_tokens"] == 7
    assert message["usage"]["cache_read_input_tokens"] == 3


async def test_stream_follows_grammar_and_pings_after_start() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        response = await client.post("/v1/messages", json=CALL | {"stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    events = stream_events(response.text)
    assert kinds(events) == [
        *GRAMMAR,
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["usage"]["input_tokens"] > 0


async def test_engine_expects_the_other_requests_of_a_burst_while_they_are_prepared() -> None:
    engine = ScriptedEngine([says("Hi")])
    async with in_memory(app_of(engine)) as client, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(partial(client.post, "/v1/messages", json=CALL))
    # However the three are interleaved, the last has no others to wait for.
    assert len(engine.expected_at_start) == 3
    assert engine.expected_at_start[0] > 0
    assert engine.expected_at_start[-1] == 0


async def test_engine_expects_no_request_that_was_refused() -> None:
    engine = ScriptedEngine([says("Hi")])
    async with in_memory(app_of(engine)) as client:
        await client.post("/v1/messages", json=CALL | {"messages": []})
    assert engine.expected == 0
    assert engine.generations == []


# What JavaScript leaves of an emoji when it truncates a text.
HALF = "a\ud83d"
WITH_HALVES = {
    "text": {"messages": [{"role": "user", "content": HALF}]},
    "system": {"system": [{"type": "text", "text": HALF}]},
    "tool result": {
        "tools": [{"name": "Bash", "description": HALF, "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {HALF: HALF}}
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": HALF}],
            },
        ],
    },
    "schema": {
        "tools": [{"name": "T", "input_schema": {"type": "object", "properties": {HALF: {}}}}]
    },
    "stop sequence": {"stop_sequences": [HALF]},
    "metadata": {"metadata": {"user_id": HALF}},
}


@pytest.mark.parametrize("where", WITH_HALVES)
@pytest.mark.parametrize("is_ascii", [True, False])
async def test_lone_surrogate_in_any_text_is_answered(
    where: str, is_ascii: bool, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(CALL | WITH_HALVES[where], ensure_ascii=is_ascii)
    sent = {
        "content": body.encode("utf-8", "surrogatepass"),
        "headers": {"content-type": "application/json"},
    }
    engine = ScriptedEngine([says("Yes.")])
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", **sent)
    assert (response.status_code, response.json()["content"][0]["text"]) == (200, "Yes.")
    # A handler of another test may have counted earlier examples.
    (line,) = [line for line in caplog.messages if "lone surrogate" in line]
    assert line.startswith("lone surrogate in a request body, read as U+FFFD")


async def test_lone_surrogate_is_counted_as_its_replacement() -> None:
    counts: list[int] = []
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        for text in (HALF, "a\ufffd"):
            messages = [{"role": "user", "content": text}]
            response = await client.post(
                "/v1/messages/count_tokens",
                content=json.dumps({"model": "any", "messages": messages}),
                headers={"content-type": "application/json"},
            )
            counts.append(response.json()["input_tokens"])
    assert counts[0] == counts[1]


@given(text=st.text(max_size=20), stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
@settings(max_examples=30)
def test_whole_answer_equals_accumulated_stream(text: str, stops: list[str]) -> None:
    anyio.run(_whole_and_streamed, text, stops)


async def _whole_and_streamed(text: str, stops: list[str]) -> None:
    call = CALL | {"stop_sequences": stops, "max_tokens": 1000}
    async with in_memory(app_of(ScriptedEngine([says(text)]))) as client:
        whole = (await client.post("/v1/messages", json=call)).json()
        response = await client.post("/v1/messages", json=call | {"stream": True})
    assert response.text.isascii()
    events = stream_events(response.text)
    deltas = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(deltas) == "".join(block["text"] for block in whole["content"])
    end = next(event for event in events if event["type"] == "message_delta")
    assert end["delta"]["stop_reason"] == whole["stop_reason"]
    assert end["delta"]["stop_sequence"] == whole["stop_sequence"]
    assert end["usage"].items() <= whole["usage"].items()
    indexes = {event["index"] for event in events if "index" in event}
    assert indexes <= {0}


async def test_stop_sequence_frees_the_engine_at_once() -> None:
    engine = ScriptedEngine([[Started(0), *map(Token, b"one STOP two"), anyio.Event()]])
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", json=CALL | {"stop_sequences": ["STOP"]})
    assert response.json()["stop_sequence"] == "STOP"
    assert response.json()["content"][0]["text"] == "one "
    assert engine.left.is_set()


async def test_max_tokens_reaches_engine_and_ends_answer() -> None:
    engine = ScriptedEngine([says("Hello")])
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", json=CALL | {"max_tokens": 3})
    assert engine.generations[0].max_tokens == 3
    assert response.json()["stop_reason"] == "max_tokens"
    assert response.json()["usage"]["output_tokens"] == 3


async def test_answer_that_fills_context_has_that_stop_reason() -> None:
    async with in_memory(app_of(ScriptedEngine([says("y" * 99)]), context_tokens=60)) as client:
        response = await client.post("/v1/messages", json=CALL | {"max_tokens": 32000})
    usage = response.json()["usage"]
    assert response.json()["stop_reason"] == "model_context_window_exceeded"
    assert usage["input_tokens"] + usage["output_tokens"] == 60


async def test_count_tokens_equals_usage_of_same_call() -> None:
    call = CALL | {"system": [{"type": "text", "text": "b<|end|>"}]}
    call["messages"] = [*CALL["messages"], {"role": "assistant", "content": "Sure, "}]
    async with in_memory(app_of(ScriptedEngine([says("ok", cached_tokens=5)]))) as client:
        count = (await client.post("/v1/messages/count_tokens", json=call)).json()
        usage = (await client.post("/v1/messages", json=call)).json()["usage"]
    assert count == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


async def test_count_tokens_counts_prompt_over_context() -> None:
    async with in_memory(app_of(ScriptedEngine([[]]), context_tokens=10)) as client:
        response = await client.post("/v1/messages/count_tokens", json=CALL)
    assert response.json()["input_tokens"] > 10


async def test_prompt_of_many_contexts_is_estimated() -> None:
    """Every endpoint estimates the same number; tokens of 32 MB would take gigabytes."""
    engine = ScriptedEngine([says("no")], health=EngineHealth("ready", context_tokens=9_000))
    call = CALL | {"messages": [{"role": "user", "content": "x" * 3_000_000}]}
    async with in_memory(app_of(engine, context_tokens=10_000)) as client:
        refused = await client.post("/v1/messages", json=call)
        count = (await client.post("/v1/messages/count_tokens", json=call)).json()["input_tokens"]
    assert refused.json()["error"]["message"] == (
        f"prompt is too long: {count} tokens > 9000 maximum"
    )
    assert count == pytest.approx(3_000_000, rel=0.01)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind", "message", "headers"),
    [
        (EngineBusyError("Loading."), 529, "overloaded_error", "Loading.", {"retry-after": "2"}),
        (WorkerDiedError("Died."), 529, "overloaded_error", "Died.", {"retry-after": "2"}),
        (EngineFailedError("No."), 500, "api_error", "No.", {"x-should-retry": "false"}),
        (EngineError("Out."), 500, "api_error", "Out.", {"x-should-retry": "false"}),
        (LethalRequestError("No."), 500, "api_error", "No.", {"x-should-retry": "false"}),
        (
            PromptTooLongError(9, 4),
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 4 maximum",
            {"x-should-retry": "false"},
        ),
        (
            PromptUnprocessableError(2, 9, 4),
            400,
            "invalid_request_error",
            PromptUnprocessableError(2, 9, 4).message,
            {"x-should-retry": "false"},
        ),
        (ZeroDivisionError("secret"), 500, "api_error", "Internal server error", {}),
        (RustPanic("secret"), 500, "api_error", "Internal server error", {}),
    ],
)
async def test_error_before_first_byte_is_a_status(
    *, error: Exception, status: int, kind: str, message: str, headers: dict[str, str], stream: bool
) -> None:
    for engine in (ScriptedEngine([[]], refusal=error), ScriptedEngine([[error]])):
        async with in_memory(app_of(engine)) as client:
            response = await client.post("/v1/messages", json=CALL | {"stream": stream})
        assert response.status_code == status
        assert response.json() == {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": response.headers["request-id"],
        }
        assert headers.items() <= dict(response.headers).items()


async def test_error_after_first_byte_is_the_last_event() -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    async with in_memory(app_of(ScriptedEngine([script]))) as client:
        response = await client.post("/v1/messages", json=CALL | {"stream": True})
    assert response.status_code == 200
    assert stream_events(response.text)[-1] == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "The engine worker ended."},
        "request_id": response.headers["request-id"],
    }


CLOCK = {
    "name": "clock",
    "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}},
}
JSON_FORMAT = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {}}}}


@pytest.mark.parametrize("stream", [True, False])
async def test_grammar_failure_before_output_relaxes_grammar_in_same_answer(
    *, stream: bool
) -> None:
    """A sleeping engine starts an answer before its worker has compiled the grammar."""
    engine = ScriptedEngine([[Started(0), GrammarError("too much to compile")], says("Hi")])
    call = CALL | {"stream": stream, "tools": [CLOCK]}
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", json=call)
    first, second = engine.generations
    assert first.grammar is not None
    assert second.grammar != first.grammar
    if stream:
        check_grammar(stream_events(response.text))
    else:
        assert response.json()["content"][0]["text"] == "Hi"


async def test_grammar_failure_after_output_is_an_error() -> None:
    script = [Started(0), *map(Token, b'{"'), GrammarError("nothing is allowed")]
    call = CALL | {"output_config": {"format": JSON_FORMAT}}
    engine = ScriptedEngine([script])
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", json=call)
    assert (response.status_code, len(engine.generations)) == (500, 1)


async def test_panic_after_first_byte_is_the_last_event() -> None:
    script = [Started(0), *map(Token, b"Hi"), RustPanic("secret")]
    async with in_memory(app_of(ScriptedEngine([script]))) as client:
        response = await client.post("/v1/messages", json=CALL | {"stream": True})
    last = stream_events(response.text)[-1]
    assert last["error"] == {"type": "api_error", "message": "Internal server error"}


class PanickingTokenizer(ByteTokenizer):
    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        raise RustPanic("index out of bounds")

    encode = encode_with_edges


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_tokenizer_panic_is_an_error_envelope(path: str) -> None:
    app = app_of(ScriptedEngine([says("no")]), tokenizer=PanickingTokenizer())
    async with in_memory(app) as client:
        response = await client.post(path, json=CALL)
        assert (await client.get("/v1/models")).status_code == 200
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "Internal server error"
    assert response.json()["request_id"] == response.headers["request-id"]


class Ballast:
    """A large body in a frame that an error passed through."""


class HoldingTokenizer(ByteTokenizer):
    references: ClassVar[list[weakref.ref[Ballast]]] = []

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        ballast = Ballast()
        self.references.append(weakref.ref(ballast))
        # This frame holds the error, which holds the frame.
        error = InvalidRequestError("refused")
        raise error

    encode = encode_with_edges


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_refused_request_frees_memory_without_garbage_collector(path: str) -> None:
    tokenizer = HoldingTokenizer()
    async with in_memory(app_of(ScriptedEngine([says("no")]), tokenizer=tokenizer)) as client:
        gc.collect()
        gc.disable()
        try:
            assert (await client.post(path, json=CALL)).status_code == 400
            assert [reference() for reference in tokenizer.references] == [None] * len(
                tokenizer.references
            )
        finally:
            gc.enable()
    assert tokenizer.references


async def test_lone_surrogate_in_error_message_is_replaced() -> None:
    engine = ScriptedEngine([[]], refusal=EngineError("about \ud800"))
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", json=CALL)
    assert response.json()["error"]["message"] == "about ?"


async def test_unexpected_error_is_logged_and_not_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.handler.setFormatter(OneLine())
    script = [Started(0), ZeroDivisionError("secret")]
    async with in_memory(app_of(ScriptedEngine([script]))) as client:
        response = await client.post("/v1/messages", json=CALL | {"stream": True})
    assert "secret" not in response.text
    assert "Internal server error" in response.text
    assert f" ERROR {response.headers['request-id']} the request failed: Zero" in caplog.text
    assert "in __anext__" in caplog.text
    assert "secret" not in caplog.text


async def test_engine_that_ends_without_last_event_is_an_error() -> None:
    async with in_memory(app_of(ScriptedEngine([[Started(0)]]))) as client:
        response = await client.post("/v1/messages", json=CALL)
    assert response.status_code == 500


async def test_too_long_prompt_is_refused_before_stream_opens() -> None:
    engine = ScriptedEngine([says("no")])
    async with in_memory(app_of(engine, context_tokens=10)) as client:
        response = await client.post("/v1/messages", json=CALL | {"stream": True})
    assert response.status_code == 400
    assert response.headers["x-should-retry"] == "false"
    message = response.json()["error"]["message"]
    assert message.startswith("prompt is too long: ")
    assert message.endswith(" tokens > 10 maximum")
    assert engine.generations == []


async def test_silent_stream_sends_pings() -> None:
    more = anyio.Event()
    engine = ScriptedEngine([[Started(0), Prefilled(5), more, *says("Hi")[1:]]])
    bodies: list[str] = []

    async def send(message: dict[str, object]) -> None:
        bodies.append(str(message.get("body", b"")))
        if pings() == 3:
            more.set()

    def pings() -> int:
        return sum("event: ping" in text for text in bodies)

    await stream_by_hand(
        app_of(engine, parts=AppParts(ping_interval=PingInterval(ping_s=0.01))), send
    )
    assert pings() >= 3
    assert "message_stop" in bodies[-2]


async def test_large_call_is_answered() -> None:
    call = CALL | {"messages": [{"role": "user", "content": "x" * 100_000}]}
    engine = ScriptedEngine([says("ok")])
    async with in_memory(app_of(engine, context_tokens=200_000)) as client:
        response = await client.post("/v1/messages", json=call)
    assert response.json()["usage"]["input_tokens"] > 100_000
    assert response.json()["content"][0]["text"] == "ok"


async def test_one_line_is_logged_per_request_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pensieve.server")
    caplog.handler.setFormatter(OneLine())
    headers = {"x-api-key": "pensieve-local-key"}
    async with in_memory(app_of(ScriptedEngine([says("world")])), headers) as client:
        response = await client.post("/v1/messages?key=canary", json=CALL)
        await client.get("/v1/models/a%0Aforged%1B[31m")
    first, second = caplog.text.splitlines()
    assert f" INFO {response.headers['request-id']} POST /v1/messages: 200 in " in first
    assert re.search(r" 6 out, queued \d+ ms, prompt \d+ ms, first token after \d+ ms$", first)
    assert not [secret for secret in ("canary", "hello", "world", "local-key") if secret in first]
    assert " GET /v1/models/*: 404 in " in second


async def test_request_content_is_never_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A secret in any field, header or query, refused or answered."""
    caplog.set_level(logging.INFO, "pensieve")
    secret = "canary-7f3a"
    bodies = [
        CALL | {"system": secret, "metadata": {"user_id": secret}, "model": secret},
        CALL | {"messages": [{"role": secret, "content": secret}]},
        CALL | {"tools": [{"name": secret, "description": secret, "input_schema": {}}]},
        CALL | {"tool_choice": {"type": "tool", "name": secret}},
        CALL | {"thread": {"type": "continue", "previous_message_id": secret}},
        CALL | {secret: secret, "stop_sequences": [secret]},
    ]
    async with in_memory(app_of(ScriptedEngine([says(secret)]))) as client:
        for number in range(REQUESTS):
            wrong = {"x-api-key": secret} if number % 5 == 0 else {}
            headers = {"cookie": secret, "x-claude-code-session-id": secret, **wrong}
            await client.post(f"/v1/messages?q={secret}", json=bodies[number % 6], headers=headers)
            await client.get(f"/v1/{secret}/models/{secret}")
            await client.delete(f"/v1/files/{secret}/content/{secret}" + f"/{secret}" * 20)
            await client.request(secret, "/v1/messages")
    ours = [record for record in caplog.records if record.name.startswith("pensieve")]
    assert len(ours) >= REQUESTS
    assert not [line for record in ours if secret in (line := record.getMessage())]


@pytest.mark.parametrize(
    ("path", "redacted"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/api/generate", "/api/generate"),
        (
            "/v1/messages/batches/msgbatch_01" + "a" * 22,
            "/v1/messages/batches/msgbatch_01" + "a" * 22,
        ),
        ("/v1/files/file_01canary/content", "/v1/files/*/content"),
        ("/v1/models/mlx-community/Some-Model", "/v1/models/*/*"),
        ("/sk-ant-canary\r\n\x1b[31m", "/*"),
        ("/" + "a/" * 500, "/" + "/".join("*" * 7)),
        ("//", "//"),
    ],
)
def test_unknown_path_segments_are_redacted(path: str, redacted: str) -> None:
    assert redact_path(path) == redacted


async def test_health_checks_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pensieve.server")
    async with in_memory(app_of(ScriptedEngine([[]])), {}) as client:
        assert (await client.get("/health")).status_code == 200
    assert not caplog.records


async def test_output_tokens_are_the_engines_count() -> None:
    script = [Started(0), Token(ord("a")), Finished("stop_token", 9)]
    async with in_memory(app_of(ScriptedEngine([script]))) as client:
        response = await client.post("/v1/messages", json=CALL)
    assert response.json()["usage"]["output_tokens"] == 9


CITED = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}


@pytest.mark.parametrize(
    ("version", "status"),
    [({}, 200), ("2023-06-01", 200), ("2026-10-21", 400), ("2030-01-01", 400)],
)
async def test_api_version_decides_which_fields_are_accepted(version: object, status: int) -> None:
    headers = {"anthropic-version": version} if isinstance(version, str) else {}
    call = CALL | {"messages": [{"role": "user", "content": [CITED]}]}
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        response = await client.post("/v1/messages", json=call, headers=headers)
        counted = await client.post("/v1/messages/count_tokens", json=call, headers=headers)
    assert (response.status_code, counted.status_code) == (status, status)


async def test_newer_version_honours_sampling() -> None:
    engine = ScriptedEngine([says("ok")])
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "from-the-future-2031"}
    async with in_memory(app_of(engine)) as client:
        call = CALL | {"temperature": 0.0}
        response = await client.post("/v1/messages?beta=true", json=call, headers=headers)
    assert response.status_code == 200
    assert engine.generations[0].sampling.temperature == 0.0


async def test_hosted_tools_are_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        response = await client.post("/v1/messages", json=CALL | {"tools": tools})
    assert response.status_code == 200
    assert "only the hosted API can run: web_search_20250305" in caplog.text


async def test_unsupported_content_type_is_refused() -> None:
    call = CALL | {"output_config": {"format": {"type": "regex", "schema": {}}}}
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        response = await client.post("/v1/messages", json=call)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "output_config.format.type: Input should be 'json_schema'"
    )


async def test_body_is_freed_while_its_answer_is_generated() -> None:
    size = 8 * 2**20
    body = json.dumps(CALL).encode() + b" " * size
    held: list[int] = []
    start, *rest = says("Hi")
    script = [start, lambda: held.append(tracemalloc.get_traced_memory()[0]), *rest]
    async with in_memory(app_of(ScriptedEngine([script]))) as client:
        tracemalloc.start()
        try:
            response = await client.post(
                "/v1/messages", content=body, headers={"content-type": "application/json"}
            )
        finally:
            tracemalloc.stop()
    assert response.status_code == 200
    assert held[0] < size // 2


async def test_log_line_of_an_answer_has_what_its_drafts_gave(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pensieve.server")
    drafts = DraftCounts(SourceCounts(4, 4), shadow=SourceCounts(31, 4))
    scripts = [
        [Started(0), Drafted(drafts), *map(Token, b"Hi there."), Finished("stop_token", 10)],
        says("Plain."),
        [Started(0), Drafted(drafts), *map(Token, b"Hi STOP there.")],
    ]
    async with in_memory(app_of(ScriptedEngine(scripts))) as client:
        for _ in scripts:
            await client.post("/v1/messages", json=CALL | {"stop_sequences": ["STOP"]})
    drafted, plain, stopped = [line for line in caplog.messages if "/v1/messages" in line]
    assert (
        ", 10 out (5.0 tokens a step, drafts accepted: 4 of 4 grammar, 4 of 31 shadow)," in drafted
    )
    assert ", 7 out, queued" in plain
    assert ", 7 out (7.0 tokens a step, drafts accepted: 4 of 4 grammar" in stopped


FILE = "".join(f"{number:6}\tx = {number}  # some text\n" for number in range(20))
READ = [
    {"role": "user", "content": "go"},
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}],
    },
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": FILE}],
    },
]


@pytest.mark.parametrize(
    ("state", "has_hints"),
    [
        (None, True),
        (SpeculationState("pays", 32, 4.8), True),
        (SpeculationState("no_width_pays", 16, 14.1), False),
        (SpeculationState("setting"), False),
    ],
)
async def test_hints_are_sent_only_where_the_engine_may_use_them(
    state: SpeculationState | None, has_hints: bool
) -> None:
    engine = ScriptedEngine([says("ok")], health=EngineHealth("ready", speculation=state))
    async with in_memory(app_of(engine)) as client:
        response = await client.post("/v1/messages", json=CALL | {"messages": READ})
    assert response.status_code == 200
    (generation,) = engine.generations
    assert bool(generation.hints) is has_hints
