"""Errors and retries of OpenAI's Python client, against a scripted engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import Omit, OpenAI

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


@dataclass(frozen=True)
class Refusal:
    """What the official clients make of a request that fails however often it is sent."""

    name: str  # of the class
    status: int
    request: Callable[[OpenAI], object]
    code: str | None = None
    param: str | None = None
    text: str = ""  # in the message

    @property
    def fields(self) -> tuple[int, str | None, str | None]:
        return self.status, self.code, self.param


def chats(**fields: Any) -> Callable[[OpenAI], object]:
    return lambda client: client.chat.completions.create(**CALL | fields)


def responds(**fields: Any) -> Callable[[OpenAI], object]:
    return lambda client: client.responses.create(model="m", **{"input": "hello", **fields})


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


LONG = "x" * 5000
REFUSALS = {
    "invalid": Refusal(
        *("BadRequestError", 400, chats(messages=[{"role": "robot"}])), param="messages[0].role"
    ),
    "tooLong": Refusal(
        *("BadRequestError", 400, chats(messages=user(LONG))),
        *("context_length_exceeded", "messages", "maximum context length is 4096 tokens"),
    ),
    "tooLongInput": Refusal(
        *("BadRequestError", 400, responds(input=LONG)),
        *("context_length_exceeded", "input", "maximum context length is 4096 tokens"),
    ),
    "key": Refusal(
        *("AuthenticationError", 401, lambda client: client.copy(api_key="wrong").models.list()),
        *("invalid_api_key", None, "pensieve env"),
    ),
    "forbidden": Refusal(
        *("PermissionDeniedError", 403, chats(extra_headers={"origin": "http://evil.test"})),
        text="Requests from web pages are not allowed.",
    ),
    "path": Refusal(
        *("NotFoundError", 404, lambda client: client.get("/assistants", cast_to=object)),
        *("not_found", None, "/v1/chat/completions"),
    ),
    "model": Refusal(
        *("NotFoundError", 404, lambda client: client.models.retrieve("gpt-x")),
        *("model_not_found", "model", "There is no model 'gpt-x'"),
    ),
    "response": Refusal(
        *("NotFoundError", 404, lambda client: client.responses.retrieve("resp_x")),
        *("not_found", None, "Response with id 'resp_x' not found."),
    ),
    "item": Refusal(
        *("NotFoundError", 404, responds(input=[{"type": "item_reference", "id": "rs_x"}])),
        *("not_found", None, "Item with id 'rs_x' not found."),
    ),
    "previous": Refusal(
        *("BadRequestError", 400, responds(previous_response_id="resp_x")),
        *("previous_response_not_found", "previous_response_id", "resp_x"),
    ),
    "embeddings": Refusal(
        *("BadRequestError", 400, lambda client: client.embeddings.create(model="m", input="x")),
        *(None, "model", "which has no embeddings"),
    ),
    "method": Refusal(
        *("APIStatusError", 405, lambda client: client.get("/chat/completions", cast_to=object)),
        text="Method GET is not allowed here.",
    ),
    "large": Refusal(
        *("APIStatusError", 413, chats(messages=user("x" * 2**25))), code="request_too_large"
    ),
}


@pytest.mark.parametrize("row", REFUSALS)
def test_every_refusal_raises_the_class_of_its_status(connect: Connect, row: str) -> None:
    refusal = REFUSALS[row]
    engine = ScriptedEngine([says("no")])
    with pytest.raises(openai.APIStatusError) as caught:
        refusal.request(connect(engine, max_retries=2))
    error = caught.value
    assert type(error).__name__ == refusal.name
    assert (error.status_code, error.code, error.param) == refusal.fields
    assert error.type == "invalid_request_error"
    assert refusal.text in error.body["message"]
    assert error.request_id == error.response.headers["x-request-id"]
    assert error.response.headers["x-should-retry"] == "false"
    assert engine.generations == []


def test_a_client_that_sends_no_key_is_answered(connect: Connect) -> None:
    create = connect(ScriptedEngine([says("Hi")])).chat.completions.with_raw_response.create
    response = create(**CALL, extra_headers={"Authorization": Omit()})
    assert "authorization" not in response.http_request.headers
    assert response.parse().choices[0].message.content == "Hi"


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
    response = caught.value.response
    is_busy = code is not None
    assert (response.status_code, "retry-after" in response.headers) == (
        503 if is_busy else 500,
        is_busy,
    )
    assert caught.value.request_id == response.headers["x-request-id"]


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
