"""`POST /v1/chat/completions` in memory: what reaches the engine, and errors of this wire."""

import json
import logging
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.engine.generation import EngineHealth, Generation, Sampling, Started, Token
from pensieve.errors import (
    EngineBusyError,
    EngineError,
    EngineFailedError,
    GrammarError,
    InvalidRequestError,
    PromptTooLongError,
    PromptUnprocessableError,
    WorkerDiedError,
)
from pensieve.server.app import AppParts
from pensieve.server.http.event_stream import PingInterval
from tests.server.messages.test_golden import CALLS, THINKER, THOUGHT
from tests.server.openai.calls import CALL, CLOCK, PATCH, STREAM, chunks_of
from tests.server.serving import KEY, app_of, in_memory, listening
from tests.support.fakes import ByteTokenizer, RustPanic, ScriptedEngine, says

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"


async def post(
    engine: ScriptedEngine, call: dict[str, Any], headers: dict[str, str] | None = None, **app: Any
) -> httpx.Response:
    async with in_memory(app_of(engine, **app), headers) as client:
        return await client.post(PATH, json=call)


async def generated(call: dict[str, Any], **app: Any) -> Generation:
    """Return what the engine gets."""
    engine = ScriptedEngine([says("ok")])
    response = await post(engine, CALL | call, **app)
    assert response.status_code == 200, response.text
    (generation,) = engine.generations
    return generation


def prompt_of(generation: Generation) -> str:
    return ByteTokenizer().decode(generation.prompt_tokens)


async def test_answer_repeats_the_requested_name() -> None:
    answer = (await post(ScriptedEngine([says("Hello!", cached_tokens=3)]), CALL)).json()
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "any")
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    unnamed = await post(ScriptedEngine([says("x")]), {"messages": CALL["messages"]})
    assert unnamed.json()["model"] == "local"


@pytest.mark.parametrize("stream", [True, False])
async def test_answer_has_no_headers_of_the_hosted_api(stream: bool) -> None:
    response = await post(ScriptedEngine([says("Hi")]), CALL | {"stream": stream})
    absent = ("openai-", "x-ratelimit-")
    assert not [name for name in response.headers if name.startswith(absent)]


async def test_stream_begins_at_once_and_ends_with_done() -> None:
    response = await post(ScriptedEngine([says("Hi")]), STREAM)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    first, *chunks = chunks_of(response.text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert response.text.split("\n\n")[0] == ": keep-alive"


@given(text=st.text(max_size=20), stops=st.lists(st.text("ab\n", max_size=3), max_size=2))
@settings(max_examples=30)
def test_whole_answer_equals_joined_stream(text: str, stops: list[str]) -> None:
    anyio.run(_whole_and_streamed, text, stops)


async def _whole_and_streamed(text: str, stops: list[str]) -> None:
    call = CALL | {"stop": stops}
    engine = ScriptedEngine([says(text)])
    whole = (await post(engine, call)).json()["choices"][0]
    response = await post(engine, call | {"stream": True})
    assert response.text.isascii()
    choices = [chunk["choices"][0] for chunk in chunks_of(response.text)]
    assert (
        "".join(one["delta"].get("content", "") for one in choices) == whole["message"]["content"]
    )
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


async def test_messages_reach_the_prompt_in_order() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert prompt_of(await generated({"messages": messages})) == (
        "<|system|>\nbe brief<|end|>\n<|user|>\none<|end|>\n<|assistant|>\ntwo<|end|>\n"
        "<|user|>\nthree<|end|>\n<|assistant|>\n"
    )


async def test_last_assistant_message_is_continued() -> None:
    messages = [*CALL["messages"], {"role": "assistant", "content": "The answer is "}]
    assert prompt_of(await generated({"messages": messages})).endswith("The answer is")


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({}, 92),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None}, 92),
        ({"max_tokens": -1}, 92),
        ({"max_tokens": 10_000}, 92),
    ],
)
async def test_limit_is_the_clients_or_the_rest_of_the_context(
    fields: dict[str, object], max_tokens: int
) -> None:
    generation = await generated(fields, context_tokens=103)
    assert generation.max_tokens == max_tokens


async def test_answer_that_fills_the_context_ends_by_length() -> None:
    response = await post(ScriptedEngine([says("y" * 99)]), CALL, context_tokens=60)
    assert response.json()["choices"][0]["finish_reason"] == "length"
    assert response.json()["usage"]["total_tokens"] == 60


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, Sampling()),
        ({"temperature": 0, "top_p": 0.5, "top_k": 7}, Sampling(0.0, 0.5, 7)),
        ({"temperature": 2, "top_k": -1}, Sampling(2.0)),
        ({"seed": 5}, Sampling(seed=5)),
        ({"seed": -(2**63)}, Sampling(seed=-(2**63))),
        ({"min_p": 0.1, "repetition_penalty": 1.1}, Sampling(min_p=0.1, repetition_penalty=1.1)),
        (
            {"frequency_penalty": 0.5, "presence_penalty": -1},
            Sampling(frequency_penalty=0.5, presence_penalty=-1),
        ),
        ({"logit_bias": {"97": -100, "98": 0.5}}, Sampling(logit_bias=((97, -100), (98, 0.5)))),
    ],
)
async def test_sampling_reaches_the_engine(fields: dict[str, object], sampling: Sampling) -> None:
    assert (await generated(fields)).sampling == sampling


async def test_tools_constrain_the_answer() -> None:
    tools = [CLOCK, PATCH, {"type": "web_search"}]
    free = await generated({"tools": tools})
    assert '"clock' in prompt_of(free)
    assert "patch" in prompt_of(free)
    for choice, is_callable in {
        "none": (False, False),
        "required": (True, True),
        "clock": (True, False),
        "patch": (False, True),
    }.items():
        allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": choice}}]}
        is_named = choice in {"clock", "patch"}
        sent = {"type": "allowed_tools", "allowed_tools": allowed} if is_named else choice
        generation = await generated({"tools": tools, "tool_choice": sent})
        assert prompt_of(generation) == prompt_of(free)
        lark = generation.grammar.lark
        assert ('clock\\"' in lark, 'patch\\"' in lark) == is_callable, choice


def freeform(syntax: str, definition: str) -> dict[str, Any]:
    grammar = {"syntax": syntax, "definition": definition}
    return {
        "type": "custom",
        "custom": {"name": "patch", "format": {"type": "grammar", "grammar": grammar}},
    }


@pytest.mark.parametrize(
    ("tool", "field", "reason"),
    [
        (freeform("lark", "start: A"), ".definition", "cannot be enforced: A is not defined"),
        (freeform("regex", "(?!a)"), ".definition", r"cannot be enforced: groups with (?"),
        (freeform("gbnf", "root ::= a"), ".syntax", "Input should be 'lark' or 'regex'"),
    ],
)
async def test_grammar_that_cannot_be_enforced_is_refused(
    tool: dict[str, Any], field: str, reason: str
) -> None:
    response = await post(ScriptedEngine([]), CALL | {"tools": [CLOCK, tool]})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, f"tools[1].custom.format.grammar{field}")
    assert reason in error["message"]


async def test_grammar_that_does_not_compile_is_refused() -> None:
    engine = ScriptedEngine([[GrammarError("too complex")]])
    response = await post(engine, CALL | {"tools": [freeform("regex", "a")]})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (
        *(400, "tools[0].custom.format.grammar.definition"),
    )


async def test_required_subset_is_one_of_its_tools() -> None:
    tools = [CLOCK, PATCH]
    named = {"type": "function", "function": {"name": "clock"}}
    required = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    subset = await generated({"tools": tools, "tool_choice": required})
    forced = await generated({"tools": [CLOCK], "tool_choice": "required"})
    assert subset.grammar == forced.grammar


async def test_answer_format_constrains_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    generation = await generated({"response_format": form})
    assert '"a"' in generation.grammar.lark
    assert '"integer"' in prompt_of(generation)
    free = await generated({"response_format": {"type": "json_object"}})
    assert free.grammar is not None
    assert (await generated({"response_format": {"type": "text"}})).grammar is None


async def test_tool_loop_extends_the_prompt() -> None:
    engine = ScriptedEngine([says(CALLS), says("Noon.")])
    async with in_memory(app_of(engine)) as client:
        first = (await client.post(PATH, json=CALL | {"tools": [CLOCK]})).json()
        message = first["choices"][0]["message"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "noon"}
            for call in reversed(message["tool_calls"])
        ]
        messages = [*CALL["messages"], message, *results]
        second = await client.post(PATH, json=CALL | {"messages": messages, "tools": [CLOCK]})
    assert second.json()["choices"][0]["message"]["content"] == "Noon."
    earlier, later = (generation.prompt_tokens for generation in engine.generations)
    answered = (*earlier, *CALLS.encode())
    assert later[: len(answered)] == answered


@pytest.mark.parametrize(
    ("fields", "has_thought"),
    [({}, True), ({"reasoning": {"exclude": True}}, False)],
)
async def test_thought_is_apart_from_the_text(fields: dict[str, object], has_thought: bool) -> None:
    engine = ScriptedEngine([says(THOUGHT)])
    message = (await post(engine, CALL | fields, dialect=THINKER)).json()["choices"][0]["message"]
    assert message["content"] == "Hello."
    assert ("reasoning_content" in message, "reasoning" in message) == (has_thought, has_thought)
    usage = (await post(engine, CALL | fields, dialect=THINKER)).json()["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] > 0


BUSY = {"type": "server_error", "code": "server_is_overloaded", "param": None}
FAILED = {"type": "server_error", "code": None, "param": None}
TOO_LONG = {
    "type": "invalid_request_error",
    "code": "context_length_exceeded",
    "param": "messages",
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "body", "headers"),
    [
        (
            EngineBusyError("Loading."),
            503,
            BUSY | {"message": "Loading."},
            {"retry-after": "2"},
        ),
        (WorkerDiedError("Died."), 503, BUSY | {"message": "Died."}, {"retry-after": "2"}),
        (
            EngineFailedError("No."),
            500,
            FAILED | {"message": "No."},
            {"x-should-retry": "false"},
        ),
        (EngineError("Out."), 500, FAILED | {"message": "Out."}, {"x-should-retry": "false"}),
        (
            PromptTooLongError(9, 4),
            400,
            TOO_LONG
            | {
                "message": "This model's maximum context length is 4 tokens. However, your messages"
                " resulted in 9 tokens. Please reduce the length of the messages."
            },
            {"x-should-retry": "false"},
        ),
        (
            PromptUnprocessableError(2, 9, 4),
            400,
            TOO_LONG | {"message": PromptUnprocessableError(2, 9, 4).message},
            {"x-should-retry": "false"},
        ),
        (
            InvalidRequestError("output_config.format.schema: No."),
            400,
            {
                "type": "invalid_request_error",
                "code": None,
                "param": "response_format.json_schema.schema",
                "message": "response_format.json_schema.schema: No.",
            },
            {"x-should-retry": "false"},
        ),
        (ZeroDivisionError("secret"), 500, FAILED | {"message": "Internal server error"}, {}),
        (RustPanic("secret"), 500, FAILED | {"message": "Internal server error"}, {}),
    ],
)
async def test_error_before_the_first_byte_is_a_status(
    *, error: BaseException, status: int, body: object, headers: dict[str, str], stream: bool
) -> None:
    for engine in (ScriptedEngine([[]], refusal=error), ScriptedEngine([[error]])):
        response = await post(engine, CALL | {"stream": stream})
        assert (response.status_code, response.json()) == (status, {"error": body})
        assert headers.items() <= dict(response.headers).items()
        assert response.headers["x-request-id"] == response.headers["request-id"]


async def test_error_of_a_tool_names_it_as_the_client_counts() -> None:
    strict = {"name": "f", "parameters": {"type": "object", "not": {}}, "strict": True}
    tools = [{"type": "web_search"}, CLOCK, {"type": "function", "function": strict}]
    response = await post(ScriptedEngine([says("no")]), CALL | {"tools": tools})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools[2].function"
    unnamed = {"type": "custom", "custom": {}}
    response = await post(ScriptedEngine([says("no")]), CALL | {"tools": [*tools[:2], unnamed]})
    assert response.json()["error"]["param"] == "tools[2].custom.name"


async def test_error_in_a_stream_is_its_last_chunk() -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    response = await post(ScriptedEngine([script]), STREAM)
    assert response.status_code == 200
    assert chunks_of(response.text)[-1] == {"error": BUSY | {"message": "The engine worker ended."}}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"api-key": KEY}, 200),
        ({"x-api-key": KEY}, 200),
        ({"authorization": "Bearer wrong", "api-key": KEY}, 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({"api-key": "wrong"}, 401),
        ({"authorization": "Bearer "}, 200),
        ({}, 200),
        ({"origin": "http://localhost:7777"}, 401),
        ({"authorization": f"Bearer {KEY}", "origin": "http://evil.test"}, 403),
        ({"authorization": f"Bearer {KEY}", "host": "evil.test"}, 403),
    ],
)
async def test_key_host_and_origin_are_checked(headers: dict[str, str], status: int) -> None:
    response = await post(ScriptedEngine([says("ok")]), CALL, headers)
    assert response.status_code == status
    if status != 200:
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"] == ("invalid_api_key" if status == 401 else None)
        assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, None),
        (b"[]", {}, 400, None),
        (json.dumps(CALL).encode(), {"content-type": "text/plain"}, 400, None),
        (
            json.dumps(CALL).encode(),
            {"content-encoding": "zstd"},
            400,
            "request_body_encoding_unsupported",
        ),
        (b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}", {}, 400, None),
        (b"x" * (32 * 1024 * 1024 + 1), {}, 413, "request_too_large"),
    ],
)
async def test_body_that_is_not_read_is_refused_in_this_wire(
    body: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    async with in_memory(app_of(ScriptedEngine([says("no")]))) as client:
        sent = {"content-type": "application/json", **headers}
        response = await client.post(PATH, content=body, headers=sent)
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert response.json()["error"]["code"] == code


async def test_other_method_is_refused_in_this_wire() -> None:
    async with in_memory(app_of(ScriptedEngine([[]]))) as client:
        response = await client.get(PATH)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_silent_stream_is_kept_alive_by_comments() -> None:
    more = anyio.Event()
    engine = ScriptedEngine([[Started(0), more, *says("Hi")[1:]]])
    app = app_of(engine, parts=AppParts(ping_interval=PingInterval(ping_s=0.01)))
    async with listening(app) as url, httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {KEY}"}
        async with client.stream("POST", url + PATH, json=STREAM, headers=headers) as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                if text.count(": keep-alive\n\n") >= 3:
                    more.set()
    assert [chunk["choices"][0]["delta"] for chunk in chunks_of(text)][1:3] == [
        {"content": "H"},
        {"content": "i"},
    ]


async def test_client_that_leaves_frees_the_engine() -> None:
    engine = ScriptedEngine([[Started(0), *map(Token, b"Hi"), anyio.Event()]])
    async with listening(app_of(engine)) as url, httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {KEY}"}
        async with client.stream("POST", url + PATH, json=STREAM, headers=headers) as response:
            async for line in response.aiter_lines():
                if '"content":"i"' in line:
                    break
        with anyio.fail_after(10):
            await engine.left.wait()


@pytest.mark.parametrize(
    "session", [{"headers": {"x-session-id": "s"}}, {"fields": {"prompt_cache_key": "s"}}]
)
async def test_prompt_that_diverges_from_its_session_is_logged(
    session: dict[str, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"x-api-key": KEY, **session.get("headers", {})}
    call = CALL | session.get("fields", {})
    async with in_memory(app_of(ScriptedEngine([says("ok")])), headers) as client:
        await client.post(PATH, json=call)
        assert "diverged" not in caplog.text
        await client.post(PATH, json=call | {"messages": [{"role": "user", "content": "other"}]})
    assert "diverged from the session's last one" in caplog.text


async def test_title_of_a_session_is_no_turn_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    headers = {"x-api-key": KEY, "x-session-id": "s"}
    async with in_memory(app_of(ScriptedEngine([says("ok")])), headers) as client:
        await client.post(PATH, json=CALL | {"tools": [CLOCK]})
        await client.post(PATH, json=CALL | {"messages": [{"role": "user", "content": "Title?"}]})
        await client.post(PATH, json=CALL | {"tools": [CLOCK]})
    assert "diverged" not in caplog.text


async def test_one_line_is_logged_with_tokens_and_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    await post(ScriptedEngine([says("s3cret", cached_tokens=2)]), CALL)
    (line,) = [one.getMessage() for one in caplog.records if one.name == "pensieve.server"]
    assert "POST /v1/chat/completions: 200 in" in line
    assert "9 new + 2 cached tokens in, 7 out, queued " in line
    assert "s3cret" not in caplog.text
    assert "hello" not in caplog.text


async def test_context_of_the_running_engine_is_named() -> None:
    engine = ScriptedEngine([says("no")], health=EngineHealth("ready", context_tokens=5))
    response = await post(engine, CALL)
    assert "maximum context length is 5 tokens" in response.json()["error"]["message"]


async def test_limit_of_tools_is_told_in_the_terms_of_its_api() -> None:
    tools = [{"type": "function", "function": {"name": f"t{at}"}} for at in range(129)]
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        response = await client.post("/v1/chat/completions", json=CALL | {"tools": tools})
    assert response.json()["error"]["message"] == ("tools: at most 128 tools can be given, not 129")


async def test_long_integers_are_read_and_longer_ones_refused_by_their_field() -> None:
    bound = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 2**64 - 1}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": bound}}]
    fields = {"seed": 2**64 - 1, "metadata": {"n": 10**400}, "tools": tools}
    generation = await generated(fields)
    assert generation.sampling.seed == -1
    body = json.dumps(CALL | fields).replace(str(2**64 - 1), "9" * 5000).encode()
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        sent = {"content-type": "application/json"}
        response = await client.post(PATH, content=body, headers=sent)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "seed")
    assert "at most 4300 digits" in response.json()["error"]["message"]
