"""Errors and retries of Anthropic's Python client, against a scripted engine."""

import time
from typing import Any

import anthropic
import pytest

from pensieve.engine.generation import Started, Token
from pensieve.errors import EngineBusyError, EngineFailedError, WorkerDiedError
from tests.clients.conftest import Connect
from tests.clients.test_python import CALL
from tests.support.fakes import ScriptedEngine, says


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "user", "content": "x" * 5000}]},
            "prompt is too long: 5006 tokens > 4096 maximum",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_invalid_request_raises_bad_request_error(
    connect: Connect, fields: dict[str, Any], message: str, stream: bool
) -> None:
    client = connect(ScriptedEngine([says("no")]), max_retries=2)
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**CALL | fields, stream=stream)
    error = caught.value
    assert error.type == "invalid_request_error"
    assert error.body["error"]["message"] == message
    assert error.request_id == error.body["request_id"] == error.response.headers["request-id"]


def test_every_status_raises_its_own_error(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("ok")]))
    with pytest.raises(anthropic.AuthenticationError, match="Invalid bearer token") as refused:
        client.with_options(api_key="wrong").messages.create(**CALL)
    assert refused.value.type == "authentication_error"
    with pytest.raises(anthropic.PermissionDeniedError) as forbidden:
        client.messages.create(**CALL, extra_headers={"origin": "http://evil.test"})
    assert forbidden.value.type == "permission_error"
    with pytest.raises(anthropic.NotFoundError, match="model: unknown") as absent:
        client.models.retrieve("unknown")
    assert absent.value.type == "not_found_error"
    with pytest.raises(anthropic.APIStatusError) as not_allowed:
        client.post("/v1/models", cast_to=object)
    assert (not_allowed.value.status_code, not_allowed.value.type) == (405, "invalid_request_error")
    large_text = [{"role": "user", "content": "x" * (32 * 1024 * 1024)}]
    with pytest.raises(anthropic.ContentTooLargeError) as large:
        client.messages.create(**CALL | {"messages": large_text})
    assert large.value.type == "request_too_large"
    with pytest.raises(anthropic.RequestHeaderFieldsTooLargeError):
        client.messages.create(**CALL, extra_headers={"x-long": "y" * 40_000})


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (EngineBusyError("Busy."), anthropic.OverloadedError, "overloaded_error"),
        (EngineFailedError("Out."), anthropic.InternalServerError, "api_error"),
        (ZeroDivisionError("secret"), anthropic.InternalServerError, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_failing_engine_raises_before_the_first_byte(
    connect: Connect,
    error: Exception,
    kind: type[anthropic.APIStatusError],
    name: str,
    stream: bool,
) -> None:
    with pytest.raises(kind) as caught:
        connect(ScriptedEngine([[error]])).messages.create(**CALL, stream=stream)
    assert caught.value.type == name
    assert "secret" not in str(caught.value)


def test_a_failing_engine_raises_in_the_stream(connect: Connect) -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    with connect(ScriptedEngine([script])).messages.stream(**CALL) as stream:
        with pytest.raises(anthropic.APIStatusError, match="The engine worker ended") as caught:
            stream.until_done()
        assert stream.current_message_snapshot.content[0].text == "Hi"
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")


def test_a_busy_engine_is_retried_after_the_given_delay(connect: Connect) -> None:
    engine = ScriptedEngine([[EngineBusyError("Busy.", retry_after_s=1)], says("Hi")])
    began_at = time.monotonic()
    message = connect(engine, max_retries=1).messages.create(**CALL)
    assert message.content[0].text == "Hi"
    assert time.monotonic() - began_at >= 1
    assert len(engine.generations) == 2


def test_an_error_that_a_retry_cannot_fix_is_not_retried(connect: Connect) -> None:
    engine = ScriptedEngine([[EngineFailedError("No.")], says("Hi")])
    with pytest.raises(anthropic.InternalServerError):
        connect(engine, max_retries=2).messages.create(**CALL)
    assert len(engine.generations) == 1


@pytest.mark.parametrize(
    "path",
    [
        *["complete", "skills", "skills/s", "skills/s/versions", "user_profiles", "environments"],
        *["organizations/me", "agents", "sessions", "memory_stores", "vaults", "deployments"],
        *["dreams", "tunnels", "nowhere"],
    ],
)
def test_endpoints_of_the_hosted_api_are_not_found(connect: Connect, path: str) -> None:
    client = connect(ScriptedEngine([says("no")]))
    for request in (client.get, client.post):
        with pytest.raises(anthropic.NotFoundError) as caught:
            request(f"/v1/{path}", cast_to=object)
        assert caught.value.type == "not_found_error"
        assert caught.value.response.headers["x-should-retry"] == "false"
