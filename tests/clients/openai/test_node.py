"""Errors and retries of OpenAI's TypeScript client under node, against a scripted engine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.generation import Started, Token
from pensieve.errors import EngineBusyError, EngineFailedError, WorkerDiedError
from tests.clients.installed import FOREIGN, openai_modules
from tests.clients.openai.test_errors import REFUSALS
from tests.clients.serving import serving
from tests.server.serving import KEY
from tests.support.fakes import ScriptedEngine, says
from tests.support.programs import run_program

RunCase = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def modules() -> Path:
    return openai_modules()


@pytest.fixture
def run_case(modules: Path, tmp_path: Path) -> RunCase:
    """A function that runs a case of openai_node.cjs against its own server."""

    def run_case(case: str, engine: ScriptedEngine) -> dict[str, Any]:
        with serving(engine, tmp_path, context_tokens=4096) as url:
            done = run_program(
                ["node", str(FOREIGN / "openai_node.cjs"), case, url, KEY],
                env={"NODE_PATH": str(modules), "PATH": os.environ["PATH"]},
                timeout=120,
            )
        return json.loads(done.stdout)

    return run_case


def test_every_refusal_raises_the_class_of_its_status(run_case: RunCase) -> None:
    engine = ScriptedEngine([says("no")])
    result = run_case("refused", engine)
    assert {
        row: (error["name"], error["status"], error["code"], error["param"])
        for row, error in result.items()
    } == {
        row: (refusal.name.replace("APIStatusError", "APIError"), *refusal.fields)
        for row, refusal in REFUSALS.items()
    }
    assert {error["type"] for error in result.values()} == {"invalid_request_error"}
    assert all(error["requestID"].startswith("req_01") for error in result.values())
    assert engine.generations == []


def test_a_failing_engine_raises_before_the_first_byte_and_in_the_stream(run_case: RunCase) -> None:
    cut = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    busy = [EngineBusyError("Busy.", retry_after_s=1)]
    engine = ScriptedEngine([busy, [EngineFailedError("Out.")], cut, busy, says("Hello.")])
    result = run_case("failing", engine)
    assert {row: (result[row]["name"], result[row]["status"]) for row in ("busy", "failed")} == {
        "busy": ("InternalServerError", 503),
        "failed": ("InternalServerError", 500),
    }
    assert result["busy"]["code"] == result["streamed"]["code"] == "server_is_overloaded"
    assert (result["streamed"]["name"], result["streamed"]["text"]) == ("APIError", "Hi")
    assert result["retried"] == "Hello."
