"""A route's wire writes its errors, also those before routing, and the pings of its streams."""

from collections.abc import Sequence

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pensieve.api.base import ApiModel
from pensieve.engine.generation import Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.server.activity.registry import Activity
from pensieve.server.errors import Failure
from pensieve.server.http.event_stream import PingInterval
from pensieve.server.http.request_body import read_body
from pensieve.server.keys.limits import KeyLimiter
from pensieve.server.keys.ring import KeyRing
from pensieve.server.messages.completion import Completer
from pensieve.server.messages.endpoint import MessagesEndpoint
from pensieve.server.messages.pipeline import AnswerWriter, RequestPipeline
from pensieve.server.messages.sessions import Sessions
from pensieve.server.middleware.access import AccessMiddleware, access_of
from pensieve.server.middleware.request_context import RequestMiddleware
from pensieve.server.routing import (
    BaseURLMiddleware,
    Operation,
    routes_of,
    routing_error,
    targets_of,
)
from pensieve.server.wire import ErrorStatus, Wire
from tests.server.serving import CALL, KEY, SETTINGS
from tests.support.fakes import ScriptedEngine, Step, says, served_model

pytestmark = pytest.mark.anyio
HEADERS = {"x-api-key": KEY}


class Fault(ApiModel):
    fault: str


def fault_of(failure: Failure) -> Fault:
    return Fault(fault=failure.message)


NUMBERS = Wire(
    "numbers",
    error_status=lambda kind: ErrorStatus(503 if issubclass(kind, EngineBusyError) else 418, ""),
    error_body=fault_of,
    error_type=Fault,
    error_event=lambda failure: f"data: {fault_of(failure).to_json()}\n\n",
    ping=lambda: ": ping\n\n",
)


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await read_body(request))))


def client_of(script: Sequence[Step] = ()) -> httpx.AsyncClient:
    engine, model = ScriptedEngine([script]), served_model()
    messages = MessagesEndpoint(
        RequestPipeline(engine, model, str, GeneratedAnswers()),
        Completer(engine, model, lambda _: None),
        Sessions(str),
        AnswerWriter(PingInterval()),
    )
    table = (
        Operation("POST", "/v1/numbers", messages.create, 1000, wire=NUMBERS),
        Operation("POST", "/v1/echo", echo, 10, wire=NUMBERS),
        Operation("GET", "/v1/plain", echo),
    )
    keys = KeyRing(SETTINGS.paths.keys_file)
    limiter = KeyLimiter(SETTINGS.paths.key_usage_file)
    app = Starlette(
        routes=routes_of(table),
        middleware=[
            Middleware(RequestMiddleware, target_of=targets_of(table), activity=Activity()),
            Middleware(
                AccessMiddleware, access=access_of(SETTINGS, ()), keys=keys, limiter=limiter
            ),
            Middleware(BaseURLMiddleware),
        ],
        exception_handlers={HTTPException: routing_error},
    )
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:7777")


async def test_stream_has_the_ping_of_its_route() -> None:
    async with client_of(says("Hi")) as client:
        response = await client.post("/v1/numbers", json=CALL | {"stream": True}, headers=HEADERS)
    assert response.text.count(": ping\n\n") == 1
    assert "event: ping" not in response.text


async def test_error_within_a_stream_is_written_by_its_route() -> None:
    script = [Started(0), Token(ord("x")), WorkerDiedError("died")]
    async with client_of(script) as client:
        response = await client.post("/v1/numbers", json=CALL | {"stream": True}, headers=HEADERS)
    assert response.text.endswith('}\n\ndata: {"fault":"died"}\n\n')


@pytest.mark.parametrize("path", ["/v1/numbers", "//v1/v1/numbers/"])
async def test_error_before_routing_is_written_by_the_route_of_the_path(path: str) -> None:
    async with client_of() as client:
        response = await client.post(
            f"http://localhost:7777{path}", json=CALL, headers={"x-api-key": "wrong"}
        )
    assert response.status_code == 418
    assert response.json() == {"fault": "invalid x-api-key"}


async def test_wrong_method_is_written_by_the_route_of_the_path() -> None:
    async with client_of() as client:
        response = await client.get("/v1/numbers", headers=HEADERS)
    assert response.json() == {"fault": "Method GET is not allowed here."}
    assert response.headers["allow"] == "POST"


async def test_error_of_an_answer_has_the_status_of_its_route() -> None:
    async with client_of([EngineBusyError("Overloaded")]) as client:
        response = await client.post("/v1/numbers", json=CALL, headers=HEADERS)
    assert (response.status_code, response.json()) == (503, {"fault": "Overloaded"})
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize("path", ["/v1/plain", "/v1/messages/nowhere"])
async def test_other_paths_have_anthropics_errors(path: str) -> None:
    async with client_of() as client:
        response = await client.get(path, headers={"x-api-key": "wrong"})
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 418)])
async def test_body_beyond_the_limit_of_its_route_is_refused(size: int, status: int) -> None:
    async with client_of() as client:
        response = await client.post(
            "/v1/echo",
            content=b"x" * size,
            headers=HEADERS | {"content-type": "application/json"},
        )
    assert response.status_code == status
