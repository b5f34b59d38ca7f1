"""Chat completions and responses through Vercel's AI SDK under node, and a scripted engine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.generation import Started, Token
from pensieve.errors import WorkerDiedError
from tests.clients.installed import FOREIGN, ai_sdk_modules
from tests.clients.serving import CachingEngine, ToolCallingEngine, serving
from tests.clients.test_python_tools import THINKING_DIALECT
from tests.server.serving import KEY
from tests.support.fakes import ScriptedEngine, says
from tests.support.programs import run_program

RunCase = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def modules() -> Path:
    return ai_sdk_modules()


@pytest.fixture(params=["openai", "responses", "compatible"])
def run_case(modules: Path, tmp_path: Path, request: pytest.FixtureRequest) -> RunCase:
    """A function that runs a case of ai_sdk.cjs against its own server."""

    def run_case(
        case: str, engine: ScriptedEngine | CachingEngine, **model: object
    ) -> dict[str, Any]:
        with serving(engine, tmp_path, **model) as url:  # type: ignore[arg-type]
            done = run_program(
                ["node", str(FOREIGN / "ai_sdk.cjs"), request.param, case, url, KEY],
                env={"NODE_PATH": str(modules), "PATH": os.environ["PATH"]},
                timeout=120,
            )
        return json.loads(done.stdout)

    return run_case


def test_a_tool_loop_streams_its_text(run_case: RunCase) -> None:
    result = run_case("tools", ToolCallingEngine("It is noon.", inputs={"clock": {"zone": "…"}}))
    assert result["calls"] == [{"toolName": "clock", "input": {"zone": "Rome"}}]
    assert result["reasons"] == ["tool-calls", "stop"]
    assert "".join(result["pieces"]) == "It is noon."
    assert len(result["pieces"]) > 2
    usage = result["usage"]
    assert usage["inputTokenDetails"]["cacheReadTokens"] >= 0.95 * usage["inputTokens"]


def test_an_object_has_its_schema(run_case: RunCase) -> None:
    weather = {"city": "Rome", "degrees": 20}
    assert run_case("object", ToolCallingEngine("", structured_output=weather)) == weather


def test_a_thought_is_its_reasoning(run_case: RunCase, request: pytest.FixtureRequest) -> None:
    engine = ScriptedEngine([says("<think>\nHm.\n</think>\n\nHello.")])
    result = run_case("thought", engine, dialect=THINKING_DIALECT)
    assert result["text"] == "Hello."
    # The package for OpenAI's own API reads no thoughts but summaries, for which it does not ask.
    if "compatible" in request.node.name:
        assert result["reasoningText"] == "Hm."


def test_an_overlong_prompt_is_an_error_that_is_not_retried(run_case: RunCase) -> None:
    result = run_case("error", ScriptedEngine([says("no")]))
    assert (result["statusCode"], result["isRetryable"]) == (400, False)
    assert result["message"].startswith("This model's maximum context length is 4096 tokens.")


def test_a_broken_stream_is_an_error(run_case: RunCase) -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    (message,) = run_case("broken", ScriptedEngine([script]))["errors"]
    assert "The engine worker ended." in message
