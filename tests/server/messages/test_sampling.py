"""Sampling parameters: the call's fields override the settings, which override the model's."""

from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from pensieve.dialects.families import plain
from pensieve.dialects.sampling_defaults import NEUTRAL
from pensieve.engine.generation import Sampling
from pensieve.paths import under_home
from pensieve.server.app import build_app
from pensieve.settings.resolve import Settings
from tests.server.serving import CALL, KEY, SETTINGS, in_memory
from tests.support.fakes import ScriptedEngine, says, served_model

pytestmark = pytest.mark.anyio

STATED = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}
MODEL = served_model(
    dialect=replace(plain.DIALECT, sampling=NEUTRAL.updated(STATED, "generation_config.json"))
)
AS_STATED = Sampling(**STATED)
TOOLS = [{"name": "Read", "input_schema": {}}]


async def sampled(call: dict[str, object], settings: Settings = SETTINGS, **headers: str):
    """Return the sampling that the engine gets."""
    engine = ScriptedEngine([says("ok")])
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with in_memory(build_app(engine, MODEL, settings), {"x-api-key": KEY, **named}) as client:
        response = await client.post("/v1/messages", json=CALL | call)
    assert response.status_code == 200
    (generation,) = engine.generations
    return generation.priority, generation.sampling


@pytest.mark.parametrize(
    ("headers", "tools", "priority"),
    [
        ({}, [], "main"),
        ({"x_claude_code_session_id": "s"}, TOOLS, "main"),
        ({"x_claude_code_session_id": "s"}, [], "side"),
        ({"x_claude_code_session_id": "s", "x_claude_code_agent_id": "a"}, TOOLS, "agent"),
    ],
)
async def test_call_without_sampling_uses_model_defaults(
    headers: dict[str, str], tools: list[object], priority: str
) -> None:
    assert await sampled({"tools": tools}, **headers) == (priority, AS_STATED)


async def test_call_overrides_settings_and_settings_override_model() -> None:
    settings = replace(SETTINGS, temperature=0.3, top_k=0, min_p=0.1)
    call = {"temperature": 0.9, "top_p": None}
    assert await sampled(call, settings) == ("main", Sampling(0.9, 0.95, 0, None, 0.1, 1.05))
    assert await sampled({}, settings) == ("main", Sampling(0.3, 0.95, 0, None, 0.1, 1.05))


async def test_batch_uses_model_defaults_and_each_requests_fields(
    tmp_path: Path,
) -> None:
    engine = ScriptedEngine([says("ok")])
    app = build_app(engine, MODEL, replace(SETTINGS, paths=under_home(tmp_path)))
    requests = [
        {"custom_id": "a", "params": CALL},
        {"custom_id": "b", "params": CALL | {"temperature": 0.0}},
    ]
    with anyio.fail_after(30):
        async with app.router.lifespan_context(app), in_memory(app) as client:
            await client.post("/v1/messages/batches", json={"requests": requests})
            while len(engine.generations) < 2:
                await anyio.lowlevel.checkpoint()
    assert {generation.sampling for generation in engine.generations} == {
        AS_STATED,
        replace(AS_STATED, temperature=0.0),
    }


async def counted(client: httpx.AsyncClient) -> int:
    conversation = {name: CALL[name] for name in ("model", "messages")}
    response = await client.post("/v1/messages/count_tokens", json=conversation)
    return response.json()["input_tokens"]


async def test_sampling_defaults_do_not_change_token_count() -> None:
    engine = ScriptedEngine([says("ok")])
    async with (
        in_memory(build_app(engine, MODEL, SETTINGS)) as stated,
        in_memory(build_app(engine, served_model(), SETTINGS)) as silent,
    ):
        assert await counted(stated) == await counted(silent)
    assert engine.generations == []


async def test_health_reports_sampling_and_its_source() -> None:
    settings = replace(SETTINGS, temperature=0.3)
    async with in_memory(build_app(ScriptedEngine([[]]), MODEL, settings)) as client:
        report = (await client.get("/health")).json()["sampling"]
    assert report["temperature"] == {"value": 0.3, "origin": "setting"}
    assert report["top_p"] == {"value": 0.95, "origin": "generation_config.json"}
    assert report["min_p"] == {"value": 0.0, "origin": "default"}
