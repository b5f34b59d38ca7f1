"""Errors and retries of OpenAI's Python client, against a scripted engine."""

from typing import Any

import openai
import pytest

from pensieve.engine.generation import Started, Token
from pensieve.errors import EngineBusyError, EngineFailedError, WorkerDiedError
from tests.clients.openai.conftest import Connect
from tests.clients.openai.test_chat import CALL
from tests.support.fakes import ScriptedEngine, says


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", None),
        ({"messages": [{"role": "robot"}]}, "messages[0].role", None),
        ({"temperature": 5}, "temperature", None),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", None),
        ({"n": 9}, "n", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            None,
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 5000}]},
            "messages",
            "context_length_exceeded",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_invalid_request_raises_bad_request_error(
    connect: Connect, fields: dict[str, Any], param: str, code: str | None, stream: bool
) -> None:
    engine = ScriptedEngine([says("no")])
    client = connect(engine, max_retries=2)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CALL | fields, stream=stream)
    error = caught.value
    assert (error.type, error.param, error.code) == ("invalid_request_error", param, code)
    assert error.request_id == error.response.headers["x-request-id"]
    assert engine.generations == []


def test_a_long_prompt_is_refused_in_the_words_on_which_clients_compact(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("no")]))
    long = CALL | {"messages": [{"role": "user", "content": "x" * 5000}]}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**long)
    assert caught.value.body["message"] == (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in"
        " 5006 tokens. Please reduce the length of the messages."
    )


def test_every_status_raises_its_own_error(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("ok")]))
    create = client.chat.completions.create
    with pytest.raises(openai.AuthenticationError, match="pensieve env") as refused:
        client.with_options(api_key="wrong").chat.completions.create(**CALL)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        create(**CALL, extra_headers={"origin": "http://evil.test"})
    assert forbidden.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="There is no model 'gpt-x'") as absent:
        client.models.retrieve("gpt-x")
    assert (absent.value.code, absent.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.APIStatusError) as not_allowed:
        client.get("/chat/completions", cast_to=object)
    assert not_allowed.value.status_code == 405
    large_text = [{"role": "user", "content": "x" * (32 * 1024 * 1024)}]
    with pytest.raises(openai.APIStatusError) as large:
        create(**CALL | {"messages": large_text})
    assert (large.value.status_code, large.value.code) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineBusyError("Busy."), "server_is_overloaded"),
        (EngineFailedError("Out."), None),
        (ZeroDivisionError("secret"), None),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_failing_engine_raises_before_the_first_byte(
    connect: Connect, error: Exception, code: str | None, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        connect(ScriptedEngine([[error]])).chat.completions.create(**CALL, stream=stream)
    assert (caught.value.type, caught.value.code) == ("server_error", code)
    assert "secret" not in str(caught.value)


def test_a_failing_engine_raises_in_the_stream(connect: Connect) -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    stream = connect(ScriptedEngine([script])).chat.completions.create(**CALL, stream=True)
    pieces: list[str] = []
    with pytest.raises(openai.APIError, match="The engine worker ended") as caught:
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert caught.value.code == "server_is_overloaded"


def test_a_busy_engine_is_retried(connect: Connect) -> None:
    engine = ScriptedEngine([[EngineBusyError("Busy.", retry_after_s=1)], says("Hi")])
    answer = connect(engine, max_retries=1).chat.completions.create(**CALL)
    assert answer.choices[0].message.content == "Hi"
    assert len(engine.generations) == 2


def test_an_error_that_a_retry_cannot_fix_is_not_retried(connect: Connect) -> None:
    engine = ScriptedEngine([[EngineFailedError("No.")], says("Hi")])
    with pytest.raises(openai.InternalServerError):
        connect(engine, max_retries=2).chat.completions.create(**CALL)
    assert len(engine.generations) == 1


@pytest.mark.parametrize(
    "path",
    [
        *["responses/a/b", "images/generations", "audio/speech", "moderations"],
        *["assistants", "threads", "vector_stores", "conversations", "chat/completions/x"],
    ],
)
def test_other_endpoints_are_not_found(connect: Connect, path: str) -> None:
    client = connect(ScriptedEngine([says("no")]))
    for request in (client.get, client.post):
        with pytest.raises(openai.NotFoundError) as caught:
            request(f"/{path}", cast_to=object)
        assert (caught.value.type, caught.value.code) == ("invalid_request_error", "not_found")
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_embeddings_are_refused_with_the_reason(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("no")]))
    with pytest.raises(openai.BadRequestError, match="which has no embeddings") as caught:
        client.embeddings.create(model="m", input="x")
    assert caught.value.param == "model"
