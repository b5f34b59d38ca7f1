"""Nothing that a client sends or that a model answers is in /activity, its history, or the log."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from pensieve import logs
from pensieve.dialects.families import hermes
from pensieve.engine.generation import Admitted, Prefilled, Started, Token
from pensieve.errors import EngineError, GrammarError
from pensieve.paths import under_home
from pensieve.server.app import AppParts
from tests.server.serving import SETTINGS, app_of, in_memory
from tests.support.fakes import ScriptedEngine, Step, says

pytestmark = pytest.mark.anyio
CANARY = "canary-7f3a"
REQUESTS = 300
SCHEMA = {
    "type": "object",
    "title": CANARY,
    "description": CANARY,
    "properties": {CANARY: {"type": "string", "enum": [CANARY], "description": CANARY}},
    "required": [CANARY],
}
TURNS = [
    {"role": "user", "content": CANARY},
    {"role": "assistant", "content": CANARY},
    {"role": "user", "content": [{"type": "text", "text": CANARY}]},
]
FUNCTION = {"name": CANARY, "description": CANARY, "parameters": SCHEMA, "strict": False}
BODIES: Mapping[str, dict[str, Any]] = {
    "/v1/messages": {
        "model": CANARY,
        "max_tokens": 60,
        "messages": [
            *TURNS,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": CANARY, "signature": CANARY},
                    {"type": "tool_use", "id": CANARY, "name": CANARY, "input": {CANARY: CANARY}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": CANARY, "content": CANARY},
                    {"type": "text", "text": CANARY, "cache_control": {"type": "ephemeral"}},
                ],
            },
        ],
        "system": [{"type": "text", "text": CANARY}],
        "tools": [{"name": CANARY, "description": CANARY, "input_schema": SCHEMA}],
        "metadata": {"user_id": CANARY},
        "stop_sequences": [CANARY * 2],
        CANARY: CANARY,
    },
    "/v1/chat/completions": {
        "model": CANARY,
        "max_tokens": 60,
        "messages": [
            {"role": "system", "content": CANARY, "name": CANARY},
            *TURNS,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": CANARY,
                        "type": "function",
                        "function": {"name": CANARY, "arguments": json.dumps({CANARY: CANARY})},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": f"{CANARY}-unknown", "content": CANARY},
        ],
        "tools": [{"type": "function", "function": FUNCTION}, {"type": CANARY, CANARY: CANARY}],
        "user": CANARY,
        "metadata": {CANARY: CANARY},
        "prompt_cache_key": CANARY,
        "safety_identifier": CANARY,
        "stop": [CANARY * 2],
        CANARY: CANARY,
    },
    "/v1/responses": {
        "model": CANARY,
        "max_output_tokens": 60,
        "instructions": CANARY,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": CANARY}]},
            {
                "type": "function_call",
                "call_id": CANARY,
                "name": CANARY,
                "arguments": json.dumps({CANARY: CANARY}),
            },
            {"type": "function_call_output", "call_id": CANARY, "output": CANARY},
            {"type": CANARY, CANARY: CANARY},
            {"role": "user", "content": CANARY},
        ],
        "tools": [{"type": "function", **FUNCTION}, {"type": CANARY, CANARY: CANARY}],
        "metadata": {CANARY: CANARY},
        "prompt_cache_key": CANARY,
        "user": CANARY,
        CANARY: CANARY,
    },
    "/v1/completions": {
        "model": CANARY,
        "prompt": CANARY,
        "max_tokens": 60,
        "user": CANARY,
        "stop": [CANARY * 2],
        CANARY: CANARY,
    },
}
HEADERS = {
    "user-agent": CANARY,
    "cookie": CANARY,
    "referer": f"http://localhost/{CANARY}",
    "x-claude-code-session-id": CANARY,
    "x-session-id": CANARY,
    "anthropic-beta": CANARY,
    "x-request-id": f"not safe: {CANARY}",
    f"x-{CANARY}": CANARY,
}
CALL = f'<tool_call>\n{{"name": "{CANARY}", "arguments": {{"{CANARY}": 1, oh no'
SCRIPTS: list[list[Step]] = [
    says(CANARY),
    [Started(0), Admitted(), Prefilled(5), *says(CALL)[1:]],
    [Started(0), *map(Token, CANARY.encode()), EngineError("The engine failed on this request.")],
    [GrammarError(CANARY)],
    says(f"{CANARY}{CANARY * 2} more"),
]
# What is logged of a client's names without repeating them.
LINES = (
    "/v1/messages: 200 in",
    "in a call of tool 1 of 1",
    "ignoring 1 tools that this server cannot run, of type unknown",
    "results without a call",
    "ignoring 1 items that are unknown here, from input.3 on",
    "input_schema of tool 1 failed to compile",
)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Yield the files of the log, which is written in both formats."""
    files = {name: tmp_path / f"{name}.log" for name in ("text", "json")}
    root, ours = logging.getLogger(), logging.getLogger("pensieve")
    before = root.handlers[:], root.level, ours.level
    with files["text"].open("w+") as text, files["json"].open("w+") as as_json:
        root.handlers[:] = []
        logs.set_up(is_debug=False, is_json=True, stream=as_json)
        handler = logging.StreamHandler(text)
        handler.setFormatter(logs.OneLine())
        root.addHandler(handler)
        yield files
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])


async def send_all(client: httpx.AsyncClient) -> None:
    paths = list(BODIES)
    for number in range(REQUESTS):
        path = paths[number % len(paths)]
        body = BODIES[path] | {"stream": number % 3 == 0}
        if number % 7 == 0:  # refused
            body |= {"messages": CANARY, "input": 3, "prompt": {CANARY: CANARY}}
        key = {"x-api-key": CANARY} if number % 11 == 0 else {}
        await client.post(f"{path}?{CANARY}={CANARY}", json=body, headers=HEADERS | key)
    params = {"custom_id": CANARY, "params": BODIES["/v1/messages"]}
    await client.post("/v1/messages/batches", json={"requests": [params]})
    upload = {"file": (CANARY, CANARY.encode(), "text/plain")}
    await client.post("/v1/files", files=upload, headers=HEADERS)
    await client.get(f"/v1/{CANARY}/models/{CANARY}", headers=HEADERS)
    await client.request("GET", "/v1/messages", content=CANARY, headers=HEADERS)


async def test_canary_in_each_field_of_each_wire_is_in_no_report_and_no_log(
    written: dict[str, Path], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, paths=under_home(tmp_path / "home"))
    engine = ScriptedEngine(SCRIPTS * REQUESTS)
    app = app_of(
        engine,
        parts=AppParts(log=written["json"]),
        settings=settings,
        context_tokens=100_000,
        dialect=hermes.DIALECT,
    )
    async with app.router.lifespan_context(app), in_memory(app) as client:
        await send_all(client)
        with anyio.fail_after(10):
            while '"batch"' not in (report := (await client.get("/activity/history")).text):
                await anyio.sleep(0)
        statuses = {request["status"] for request in json.loads(report)["recent"]}
        assert statuses >= {200, 400, 500}
        assert len(json.loads(report)["log"]) == 100
        for path in ("/activity", "/metrics"):
            report += (await client.get(path)).text
    assert 'wire="batch"' in report
    assert CANARY not in report
    for log in written.values():
        text = log.read_text()
        assert CANARY not in text
        for line in LINES:
            assert line in text
