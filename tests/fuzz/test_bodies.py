"""The whole application answers or refuses nearly valid bodies, in the envelope and quickly."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import anyio
import anyio.from_thread
import httpx
import pytest
from hypothesis import example, given

from pensieve.paths import under_home
from tests.fuzz.examples import max_examples
from tests.fuzz.mutations import bodies, damaged
from tests.server.serving import KEY, SETTINGS, app_of, stream_events
from tests.support.fakes import ScriptedEngine, says

# Of the processor: a busy machine may stop this process for longer.
MAX_RESPONSE_S = 2.0
HEADERS = {"x-api-key": KEY, "content-type": "application/json"}
REFUSALS = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
}


class BlockingClient:
    """A client of one application for tests without an event loop."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, client: httpx.AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def post(self, path: str, body: bytes) -> httpx.Response:
        began_at = time.process_time()
        response = self._portal.call(self._post, path, body)
        assert time.process_time() - began_at < MAX_RESPONSE_S
        return response

    async def _post(self, path: str, body: bytes) -> httpx.Response:
        return await self._client.post(path, content=body, headers=HEADERS)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingClient]:
    home = under_home(tmp_path_factory.mktemp("home"))
    app = app_of(ScriptedEngine([says("Hello!")]), settings=replace(SETTINGS, paths=home))
    transport = httpx.ASGITransport(app)
    http = httpx.AsyncClient(transport=transport, base_url="http://localhost:7777")
    with anyio.from_thread.start_blocking_portal() as portal:
        yield BlockingClient(portal, http)


def assert_answered(response: httpx.Response) -> None:
    assert response.headers["request-id"].startswith("req_")
    if response.status_code != 200:
        assert_refused(response)
    elif response.headers["content-type"].startswith("text/event-stream"):
        kinds = [event["type"] for event in stream_events(response.text)]
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    else:
        assert response.json().get("type", "") != "error"


def assert_refused(response: httpx.Response) -> None:
    envelope = response.json()
    assert envelope.keys() == {"type", "error", "request_id"}
    assert envelope["error"]["type"] == REFUSALS[response.status_code]
    assert envelope["error"]["message"]
    assert envelope["request_id"] == response.headers["request-id"]
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@max_examples(250)
@given(body=bodies)
@example(body=b"[" * 100_000)
@example(body=b'{"model": "m", "max_tokens": 5, "messages": ' + b'[{"role": "user"},' * 100_000)
def test_a_nearly_valid_body_is_answered_or_refused(
    path: str, body: bytes, client: BlockingClient
) -> None:
    assert_answered(client.post(path, body))


@max_examples(150)
@given(body=bodies)
def test_a_batch_with_a_nearly_valid_request_is_accepted_or_refused(
    body: bytes, client: BlockingClient
) -> None:
    batch = b'{"requests": [{"custom_id": "a", "params": ' + body + b"}]}"
    assert_answered(client.post("/v1/messages/batches", batch))


@max_examples(250)
@given(body=damaged())
def test_a_damaged_body_is_answered_or_refused(body: bytes, client: BlockingClient) -> None:
    response = client.post("/v1/messages", body)
    assert_answered(response)
    if not is_json(body):
        assert response.status_code == 400
        assert "The request body is not valid JSON: " in response.json()["error"]["message"]


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
