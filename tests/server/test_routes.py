"""Health, greetings, unknown paths and methods."""

import anyio
import httpx
import pytest

from pensieve.engine.generation import (
    DraftCounts,
    EngineHealth,
    EngineStats,
    SourceCounts,
    SpeculationState,
)
from tests.server.serving import KEY, app_of, in_memory, listening
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
ENGINE = ScriptedEngine([says("ok")])
HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found_error"),
        ("HEAD", "/nowhere", 404, ""),
        ("OPTIONS", "/nowhere", 404, "not_found_error"),
        ("POST", "/v1/complete", 404, "not_found_error"),
        ("GET", "/v1/messages/", 405, "invalid_request_error"),
        ("POST", "/v1", 404, "not_found_error"),
        ("POST", "/v1/v1", 404, "not_found_error"),
        ("POST", "/v1/messages//count_tokens", 404, "not_found_error"),
        ("GET", "/V1/models", 404, "not_found_error"),
        ("POST", "/openapi.json", 405, "invalid_request_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("HEAD", "/v1/messages", 405, ""),
        ("OPTIONS", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/models", 405, "invalid_request_error"),
        ("PUT", "/v1/files", 405, "invalid_request_error"),
        ("POST", "/", 405, "invalid_request_error"),
        ("PUT", "/health", 405, "invalid_request_error"),
        ("BREW", "/health", 405, "invalid_request_error"),
    ],
)
async def test_unknown_path_gets_an_error_envelope(
    method: str, path: str, status: int, kind: str
) -> None:
    async with listening(app_of(ENGINE)) as url, httpx.AsyncClient(headers=HEADERS) as client:
        response = await client.request(method, url + path)
    assert response.status_code == status
    assert ("allow" in response.headers) == (status == 405)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-should-retry"] == "false"
    if kind:
        assert response.json()["error"]["type"] == kind
        assert response.json()["request_id"] == response.headers["request-id"]
    else:
        assert response.content == b""


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/messages", {"POST"}),
        ("/v1/messages/batches", {"GET", "HEAD", "POST"}),
        ("/v1/messages/batches/msgbatch_1", {"GET", "HEAD", "DELETE"}),
        ("/v1/files", {"GET", "HEAD", "POST"}),
        ("/v1/files/file_1", {"GET", "HEAD", "DELETE"}),
    ],
)
async def test_wrong_method_lists_allowed_ones(path: str, methods: set[str]) -> None:
    async with in_memory(app_of(ENGINE)) as client:
        response = await client.request("PATCH", path)
    assert set(response.headers["allow"].split(", ")) == methods


@pytest.mark.parametrize("path", ["/", "/api/hello", "/health", "/openapi.json", "/v1/models"])
async def test_head_is_get_without_body(path: str) -> None:
    async with listening(app_of(ENGINE)) as url, httpx.AsyncClient(headers=HEADERS) as client:
        get, head = await client.get(url + path), await client.head(url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == str(len(get.content))


async def test_preflight_of_own_origin_is_granted() -> None:
    headers = {
        "origin": "http://localhost:7777",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key,content-type",
    }
    async with in_memory(app_of(ENGINE), headers) as client:
        response = await client.options("/v1/messages")
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "http://localhost:7777"
    assert response.headers["access-control-allow-headers"] == "x-api-key,content-type"
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["request-id"].startswith("req_")


@pytest.mark.parametrize("origin", ["http://localhost:8080", "https://localhost:7777", "null"])
async def test_preflight_of_other_origin_is_refused(origin: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    async with in_memory(app_of(ENGINE), headers) as client:
        response = await client.options("/v1/messages")
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


async def test_health_reports_model_and_state() -> None:
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
        "thinking": "none",
        "detail": "",
        "restarts": 0,
        "restarts_by_cause": {},
        "sleeps": 0,
        "wakes": 0,
        "poison_prompts": 0,
        "is_model_at_fault": False,
        "idle_unload": 30.0,
        "in_flight": 0,
        "engine": None,
        "speculation": None,
        "sampling": {
            "temperature": {"value": 1.0, "origin": "default"},
            "top_p": {"value": 1.0, "origin": "default"},
            "top_k": {"value": 0, "origin": "default"},
            "min_p": {"value": 0.0, "origin": "default"},
            "repetition_penalty": {"value": 1.0, "origin": "default"},
        },
        "shows_content": False,
        "host": None,
        "diverged_prompts": 0,
        "device": "cpu",
    }


async def test_health_reports_engine_memory() -> None:
    figures = EngineStats(
        *(8, "why", 12, 2, 10),
        kv_used_bytes=4,
        worker_bytes=9,
        queued=3,
        running=2,
        tokens_per_second=24.5,
        prompt_tokens_per_second=130.2,
        tokens_per_step=2.5,
        preempted=1,
        grammar_s=0.25,
        drafts=DraftCounts(SourceCounts(3, 2), shadow=SourceCounts(31, 30), mtp=SourceCounts(9, 7)),
    )
    state = SpeculationState("pays", 32, 4.8, has_head=True)
    health = EngineHealth("ready", stats=figures, speculation=state)
    async with in_memory(app_of(ScriptedEngine([[]], health=health)), {}) as client:
        report = (await client.get("/health")).json()
    shown = {"reason": "pays", "rows": 32, "ratio": 4.8, "has_head": True}
    assert report["speculation"] == shown
    assert report["engine"] == {
        "kv_bits": 8,
        "kv_reason": "why",
        "memory_limit_bytes": 12,
        "weights_bytes": 2,
        "kv_budget_bytes": 10,
        "kv_used_bytes": 4,
        "prefix_memory_bytes": 0,
        "prefix_disk_bytes": 0,
        "prefix_disk_cap_bytes": 0,
        "written_today_bytes": 0,
        "daily_write_budget_bytes": 0,
        "is_writing_paused": False,
        "worker_bytes": 9,
        "queued": 3,
        "running": 2,
        "tokens_per_second": 24.5,
        "prompt_tokens_per_second": 130.2,
        "tokens_per_step": 2.5,
        "preempted": 1,
        "grammar_s": 0.25,
        "drafts": {
            "grammar": {"drafted": 3, "accepted": 2},
            "lookup": {"drafted": 0, "accepted": 0},
            "shadow": {"drafted": 31, "accepted": 30},
            "mtp": {"drafted": 9, "accepted": 7},
        },
    }


async def test_idle_engine_is_healthy_with_known_context() -> None:
    engine = ScriptedEngine([[]], health=EngineHealth("asleep", context_tokens=1000))
    async with in_memory(app_of(engine), {}) as client:
        response = await client.get("/health")
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["context_tokens"]) == ("asleep", 1000)


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_health_is_503_until_the_model_answers(state: str) -> None:
    health = EngineHealth(state, "because", restarts_by_cause={"idle": 1, "hung": 1})
    engine = ScriptedEngine([[]], health=health)
    async with in_memory(app_of(engine), {}) as client:
        response = await client.get("/health")
    assert response.status_code == 503
    assert response.json()["status"] == state
    assert (response.json()["detail"], response.json()["restarts"]) == ("because", 2)
    assert response.json()["restarts_by_cause"] == {"idle": 1, "hung": 1}


async def test_every_response_has_a_unique_request_id() -> None:
    async with in_memory(app_of(ENGINE), {}) as client:
        paths = ("/", "/health", "/v1/models", "/nowhere")
        seen = {(await client.get(path)).headers["request-id"] for path in paths}
    assert len(seen) == len(paths)
    assert all(request_id.startswith("req_01") for request_id in seen)


async def test_requests_are_answered_concurrently() -> None:
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
