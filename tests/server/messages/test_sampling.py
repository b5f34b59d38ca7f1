"""How the engine is asked to sample: the call's fields, then the settings', then the model's."""

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
from tests.fakes import ScriptedEngine, says, served_model
from tests.server.serving import CALL, KEY, SETTINGS, in_memory

pytestmark = pytest.mark.anyio

STATED = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}
MODEL = served_model(
    dialect=replace(plain.DIALECT, sampling=NEUTRAL.updated(STATED, "generation_config.json"))
)
AS_STATED = Sampling(**STATED)
TOOLS = [{"name": "Read", "input_schema": {}}]


async def sampled(call: dict[str, object], settings: Settings = SETTINGS, **headers: str):
    """The sampling that the engine is asked for."""
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
async def test_a_call_without_sampling_is_sampled_as_the_makers_say(
    headers: dict[str, str], tools: list[object], priority: str
) -> None:
    assert await sampled({"tools": tools}, **headers) == (priority, AS_STATED)


async def test_a_field_of_the_call_comes_before_a_setting_and_that_before_the_models() -> None:
    settings = replace(SETTINGS, temperature=0.3, top_k=0, min_p=0.1)
    call = {"temperature": 0.9, "top_p": None}
    assert await sampled(call, settings) == ("main", Sampling(0.9, 0.95, 0, None, 0.1, 1.05))
    assert await sampled({}, settings) == ("main", Sampling(0.3, 0.95, 0, None, 0.1, 1.05))


async def test_a_batch_is_sampled_as_the_makers_say_and_as_each_request_asks(
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
    assert {one.sampling for one in engine.generations} == {
        AS_STATED,
        replace(AS_STATED, temperature=0.0),
    }


async def counted(client: httpx.AsyncClient) -> int:
    conversation = {name: CALL[name] for name in ("model", "messages")}
    response = await client.post("/v1/messages/count_tokens", json=conversation)
    return response.json()["input_tokens"]


async def test_tokens_are_counted_as_for_a_model_that_states_nothing() -> None:
    engine = ScriptedEngine([says("ok")])
    async with (
        in_memory(build_app(engine, MODEL, SETTINGS)) as stated,
        in_memory(build_app(engine, served_model(), SETTINGS)) as silent,
    ):
        assert await counted(stated) == await counted(silent)
    assert engine.generations == []


async def test_health_tells_what_holds_and_why() -> None:
    settings = replace(SETTINGS, temperature=0.3)
    async with in_memory(build_app(ScriptedEngine([[]]), MODEL, settings)) as client:
        told = (await client.get("/health")).json()["sampling"]
    assert told["temperature"] == {"value": 0.3, "origin": "setting"}
    assert told["top_p"] == {"value": 0.95, "origin": "generation_config.json"}
    assert told["min_p"] == {"value": 0.0, "origin": "default"}
