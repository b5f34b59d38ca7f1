"""Models, health, and the paths that are not there."""

import anyio
import pytest

from pensieve.engine.generation import EngineHealth
from tests.fakes import ScriptedEngine, says
from tests.server.serving import app_of, in_memory

pytestmark = pytest.mark.anyio
ENGINE = ScriptedEngine([says("ok")])


async def test_the_served_model_is_listed() -> None:
    async with in_memory(app_of(ENGINE, name="org/tiny")) as client:
        page = (await client.get("/v1/models?limit=1000&beta=true")).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("org/tiny", "org/tiny", False)
    model = page["data"][0]
    assert model["id"] == model["display_name"] == "org/tiny"
    assert (model["created_at"], model["max_input_tokens"]) == ("2023-11-14T22:13:20Z", 4096)
    assert (model["type"], model["lifecycle"]) == ("model", "active")


@pytest.mark.parametrize("cursor", ["after_id", "before_id"])
async def test_there_is_no_second_page(cursor: str) -> None:
    async with in_memory(app_of(ENGINE, name="tiny")) as client:
        page = (await client.get("/v1/models", params={cursor: "tiny"})).json()
    assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize("limit", ["0", "1001", "x", "-1", "", "9" * 5000])
async def test_a_limit_out_of_range_is_told(limit: str) -> None:
    async with in_memory(app_of(ENGINE)) as client:
        response = await client.get("/v1/models", params={"limit": limit})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("limit: Input should be ")


@pytest.mark.parametrize("path", ["org/tiny", "org%2Ftiny", "someone/org/tiny"])
async def test_a_model_is_found_by_name_and_repo(path: str) -> None:
    async with in_memory(app_of(ENGINE, name="org/tiny")) as client:
        response = await client.get(f"/v1/models/{path}")
    assert response.json()["id"] == "org/tiny"


async def test_an_unknown_model_is_named() -> None:
    async with in_memory(app_of(ENGINE)) as client:
        response = await client.get("/v1/models/claude-nope")
    assert response.status_code == 404
    assert response.json()["error"] == {"type": "not_found_error", "message": "model: claude-nope"}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found_error"),
        ("POST", "/v1/complete", 404, "not_found_error"),
        ("GET", "/v1/messages/", 404, "not_found_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/models", 405, "invalid_request_error"),
        ("PUT", "/health", 405, "invalid_request_error"),
    ],
)
async def test_what_is_not_there_is_told_in_the_envelope(
    method: str, path: str, status: int, kind: str
) -> None:
    async with in_memory(app_of(ENGINE)) as client:
        response = await client.request(method, path)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert response.json()["request_id"] == response.headers["request-id"]
    assert ("allow" in response.headers) == (status == 405)


async def test_health_tells_what_is_served_and_how_it_is() -> None:
    async with in_memory(app_of(ENGINE, name="tiny"), {}) as client:
        response = await client.get("/health")
    report = response.json()
    assert response.status_code == 200
    assert report.pop("version")
    assert report.pop("pid")
    assert report == {
        "status": "ready",
        "model": "tiny",
        "repo": "someone/tiny",
        "context_tokens": 4096,
        "detail": "",
        "restarts": 0,
        "in_flight": 0,
        "device": "cpu",
    }


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_health_is_no_success_until_the_model_answers(state: str) -> None:
    engine = ScriptedEngine([[]], health=EngineHealth(state, "because", restarts=2))
    async with in_memory(app_of(engine), {}) as client:
        response = await client.get("/health")
    assert response.status_code == 503
    assert response.json()["status"] == state
    assert (response.json()["detail"], response.json()["restarts"]) == ("because", 2)


async def test_every_response_has_a_request_id_of_its_own() -> None:
    async with in_memory(app_of(ENGINE), {}) as client:
        paths = ("/", "/health", "/v1/models", "/nowhere")
        seen = {(await client.get(path)).headers["request-id"] for path in paths}
    assert len(seen) == len(paths)
    assert all(request_id.startswith("req_01") for request_id in seen)


async def test_requests_are_answered_side_by_side() -> None:
    gate = anyio.Event()
    first = [says("one")[0], gate, *says("one")[1:]]
    engine = ScriptedEngine([first, says("two")])
    call = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    answers: list[str] = []
    async with in_memory(app_of(engine)) as client, anyio.create_task_group() as tasks:

        async def ask() -> None:
            response = await client.post("/v1/messages", json=call)
            answers.append(response.json()["content"][0]["text"])
            gate.set()

        tasks.start_soon(ask)
        tasks.start_soon(ask)
    assert answers == ["two", "one"]
