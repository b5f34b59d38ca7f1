"""`GET /metrics` after requests: each metric follows what it counts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from pensieve.engine.generation import Admitted, EngineHealth, Finished, Prefilled, Started, Token
from pensieve.errors import EngineBusyError, EngineError
from pensieve.paths import under_home
from pensieve.server.activity.registry import Activity
from pensieve.server.app import AppParts
from tests.server.metrics.scraping import Samples, families, moved, scrape
from tests.server.serving import CALL, KEY, SETTINGS, app_of, in_memory, listening
from tests.support.fakes import ScriptedEngine, Step, says
from tests.support.pictures import SIGHT, image_of, picture

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def after(self, seconds: float) -> Callable[[], None]:
        """Return a step of a script that takes so long."""

        def pass_by() -> None:
            self.now_s += seconds

        return pass_by


def client_of(scripts: Sequence[Sequence[Step]], clock: Clock | None = None) -> httpx.AsyncClient:
    activity = Activity(clock) if clock else Activity()
    return in_memory(app_of(ScriptedEngine(scripts), parts=AppParts(activity=activity)))


def count(name: str, *labels: str) -> tuple[str, ...]:
    return (f"pensieve_{name}_total", *labels)


async def test_an_answer_moves_counts_times_and_speeds() -> None:
    clock = Clock()
    script: list[Step] = [
        *(clock.after(0.5), Started(20), Admitted()),
        *(clock.after(2.0), Prefilled(320), Token(65)),
        *(each for _ in range(20) for each in (clock.after(0.05), Token(66))),
        *(clock.after(0.9), Finished("stop_token", 22)),
    ]
    call = CALL | {"messages": [{"role": "user", "content": "x" * 300}]}
    async with client_of([script], clock) as client:
        prompt_tokens = (await client.post("/v1/messages/count_tokens", json=call)).json()
        before = await scrape(client)
        assert (await client.post("/v1/messages", json=call)).status_code == 200
        found = moved(before, await scrape(client))
    assert found[count("requests", "/v1/messages", "200", "anthropic")] == 1
    assert found[count("prompt_tokens")] == prompt_tokens["input_tokens"]
    assert found[count("cached_prompt_tokens")] == 20
    assert found[count("output_tokens")] == 22
    assert sums(found) == {
        "time_to_first_token_seconds": (1, pytest.approx(2.5)),
        "request_duration_seconds": (1, pytest.approx(4.4)),
        "inter_token_seconds": (20, pytest.approx(1.0)),
        "prefill_tokens_per_second": (1, pytest.approx((prompt_tokens["input_tokens"] - 20) / 2)),
        "decode_tokens_per_second": (1, pytest.approx(20.0)),
    }
    assert ("pensieve_time_to_first_token_seconds_bucket", "2.0", "main") not in found
    assert found["pensieve_time_to_first_token_seconds_bucket", "3.0", "main"] == 1


async def test_pictures_are_counted() -> None:
    content = [image_of(picture()), image_of(picture(colour="blue"))]
    call = CALL | {"messages": [{"role": "user", "content": content}]}
    app = app_of(ScriptedEngine([says("ok")]), sight=SIGHT)
    async with in_memory(app) as client:
        before = await scrape(client)
        assert (await client.post("/v1/messages", json=call)).status_code == 200
        found = moved(before, await scrape(client))
        history = (await client.get("/activity/history")).json()
    assert found[count("pictures")] == 2
    assert [each["pictures"] for each in history["recent"]] == [2]


def sums(found: Samples) -> dict[str, tuple[float, float]]:
    """Return the count and the sum of each histogram that grew."""
    counts = {key[0].removesuffix("_count"): key for key in found if key[0].endswith("_count")}
    return {
        name.removeprefix("pensieve_"): (found[key], found[f"{name}_sum", *key[1:]])
        for name, key in counts.items()
    }


async def test_speeds_of_a_few_tokens_are_left_out() -> None:
    """All but a few of the prompt's were cached."""
    clock = Clock()
    script: list[Step] = [
        *(Started(290), Admitted(), clock.after(0.01), Prefilled(300)),
        *(Token(65), clock.after(0.01), Token(65), Finished("stop_token", 3)),
    ]
    call = CALL | {"messages": [{"role": "user", "content": "x" * 300}]}
    async with client_of([script], clock) as client:
        await client.post("/v1/messages", json=call)
        found = sums(moved({}, await scrape(client)))
    assert found["time_to_first_token_seconds"][0] == 1
    assert "prefill_tokens_per_second" not in found
    assert "decode_tokens_per_second" not in found


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "completions"),
        ("/v1/responses", "responses"),
    ],
)
async def test_requests_are_counted_by_route_status_and_wire(path: str, wire: str) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": CALL["messages"]}
    bodies = {
        "/v1/completions": {"model": "m", "prompt": "hello"},
        "/v1/responses": {"model": "m", "input": "hello"},
    }
    async with client_of([says("ok")]) as client:
        assert (await client.post(path, json=bodies.get(path, body))).status_code == 200
        assert (await client.post(path, json=[])).status_code == 400
        found = await scrape(client)
    assert found[count("requests", path, "200", wire)] == 1
    assert found[count("requests", path, "400", wire)] == 1
    assert found[count("output_tokens")] == 3


FAILING = {
    "/v1/messages": CALL,
    "/v1/chat/completions": {"model": "m", "messages": CALL["messages"]},
    "/v1/completions": {"model": "m", "prompt": "hello"},
    "/v1/responses": {"model": "m", "input": "hello"},
}


@pytest.mark.parametrize("path", FAILING)
async def test_stream_that_fails_midway_has_the_status_of_its_error(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    error = EngineError("The engine failed on this request.")
    script = [Started(0), Admitted(), Prefilled(5), *map(Token, b"Hello"), error]
    async with client_of([script]) as client:
        response = await client.post(path, json=FAILING[path] | {"stream": True})
        found = moved({}, await scrape(client))
        recent = (await client.get("/activity/history")).json()["recent"]
    assert response.status_code == 200
    assert {labels[1] for name, *labels in found if name == count("requests")[0]} == {"500"}
    assert [(each["status"], each["is_broken_off"]) for each in recent] == [(500, True)]
    lines = "\n".join(record.getMessage() for record in caplog.records)
    assert f"{path}: 500 in mid-stream in" in lines
    assert ", 5 out" in lines
    assert "failed in mid-stream: The engine failed on this request." in lines


async def test_stream_of_claude_code_that_is_aborted_has_the_status_of_its_error() -> None:
    error = EngineError("The engine failed on this request.")
    script = [Started(0), Admitted(), Prefilled(5), *map(Token, b"Hello"), error]
    headers = {"x-api-key": KEY, "user-agent": "claude-cli/2.1"}
    async with (
        listening(app_of(ScriptedEngine([script]))) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/messages", json=CALL | {"stream": True})
        found = await scrape(client)
        recent = (await client.get("/activity/history")).json()["recent"]
    assert found[count("requests", "/v1/messages", "500", "anthropic")] == 1
    assert count("requests", "/v1/messages", "200", "anthropic") not in found
    ended = [(each["status"], each["is_broken_off"], each["is_client_gone"]) for each in recent]
    assert ended == [(500, True, False)]


async def test_prompt_that_is_not_read_to_its_end_counts_what_was_read() -> None:
    script = [Started(100), Admitted(), Prefilled(200), EngineError("The engine worker ended.")]
    call = CALL | {"messages": [{"role": "user", "content": "x" * 900}]}
    async with client_of([script]) as client:
        await client.post("/v1/messages", json=call)
        found = await scrape(client)
    assert (found[count("prompt_tokens")], found[count("cached_prompt_tokens")]) == (200, 100)


async def test_priority_of_a_sub_agent_is_a_label() -> None:
    headers = {"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"}
    async with client_of([says("ok")]) as client:
        await client.post("/v1/messages", json=CALL, headers=headers)
        found = moved({}, await scrape(client))
    assert found["pensieve_request_duration_seconds_count", "agent"] == 1
    assert ("pensieve_request_duration_seconds_count", "main") not in found


async def test_refused_request_is_counted_by_its_status_and_has_no_first_token() -> None:
    engine = ScriptedEngine([[]], refusal=EngineBusyError("busy"))
    async with in_memory(app_of(engine)) as client:
        assert (await client.post("/v1/messages", json=CALL)).status_code == 529
        found = moved({}, await scrape(client))
    assert found[count("requests", "/v1/messages", "529", "anthropic")] == 1
    assert "time_to_first_token_seconds" not in sums(found)


async def test_a_thousand_unknown_paths_and_methods_add_one_series_each_status() -> None:
    async with client_of([says("ok")]) as client:
        await client.get("/nowhere")
        await client.request("BREW", "/health")
        before = await scrape(client)
        for number in range(500):
            await client.get(f"/x/{number}/v1")
            await client.request(f"BREW{number}", "/health")
        after = await scrape(client)
    assert set(after) - set(before) == {count("requests", "/metrics", "200", "anthropic")}
    assert moved(before, after) == {
        count("requests", "/metrics", "200", "anthropic"): 1,
        count("requests", "other", "404", "chat"): 500,
        count("requests", "/health", "405", "anthropic"): 500,
    }


async def test_client_that_leaves_before_the_response_is_counted_as_499() -> None:
    app = app_of(ScriptedEngine([says("ok")]))
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": headers}

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        pytest.fail(f"nothing is sent: {message}")

    await app(scope, receive, send)
    async with in_memory(app) as client:
        found = await scrape(client)
    assert found[count("requests", "/v1/messages", "499", "anthropic")] == 1


async def test_requests_of_a_batch_are_counted_apart(tmp_path: Path) -> None:
    settings = replace(SETTINGS, paths=under_home(tmp_path))
    app = app_of(ScriptedEngine([says("ok")]), settings=settings)
    entries = [{"custom_id": "a", "params": CALL}, {"custom_id": "b", "params": {}}]
    async with app.router.lifespan_context(app), in_memory(app) as client:
        await client.post("/v1/messages/batches", json={"requests": entries})
        route = "/v1/messages/batches"
        wanted = {count("requests", route, status, "batch") for status in ("200", "400")}
        with anyio.fail_after(30):
            while not wanted <= set(found := await scrape(client)):
                await anyio.sleep(0)
    assert found["pensieve_request_duration_seconds_count", "batch"] == 1
    assert found[count("output_tokens")] == 3


async def test_metrics_need_no_key_and_are_those_of_one_application() -> None:
    health = EngineHealth("ready")
    first, second = (app_of(ScriptedEngine([says("ok")], health=health)) for _ in range(2))
    async with in_memory(first) as client:
        await client.post("/v1/messages", json=CALL)
    async with in_memory(first, {}) as client:
        assert (await scrape(client))[count("output_tokens")] == 3
    async with in_memory(second, {}) as client:
        assert (await scrape(client))[count("output_tokens")] == 0


async def test_scrape_has_the_version_and_no_series_of_creation_times() -> None:
    import pensieve

    async with client_of([says("ok")]) as client:
        names = {metric.name for metric in await families(client)}
        found = await scrape(client)
    assert found["pensieve_build_info", "cpu", pensieve.__version__] == 1
    assert not {name for name in names if name.endswith("_created")}
    assert all(name.startswith("pensieve_") for name in names)
