"""Anthropic's TypeScript client under node, against a real server with a scripted engine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from pensieve.engine.generation import Started, Token
from pensieve.errors import EngineBusyError, EngineFailedError, WorkerDiedError
from tests.clients.installed import FOREIGN, node_modules
from tests.clients.serving import prompts, serving
from tests.server.serving import KEY, app_of, listening
from tests.support.fakes import ScriptedEngine, says
from tests.support.programs import run_program

Result = dict[str, Any]
RunCase = Callable[..., Result]


@pytest.fixture(scope="module")
def modules() -> Path:
    return node_modules()


def run_case_at(modules: Path, case: str, url: str) -> Result:
    """Run a case of typescript.cjs and return its result."""
    done = run_program(
        ["node", str(FOREIGN / "typescript.cjs"), case, url, KEY],
        env={"NODE_PATH": str(modules), "PATH": os.environ["PATH"]},
        timeout=120,
    )
    return json.loads(done.stdout)


@pytest.fixture
def run_case(modules: Path, tmp_path: Path) -> RunCase:
    """A function that runs a case against its own server."""

    def run_case(case: str, engine: ScriptedEngine, **model: object) -> Result:
        with serving(engine, tmp_path, **model) as url:
            return run_case_at(modules, case, url)

    return run_case


def test_create_returns_a_message(run_case: RunCase) -> None:
    result = run_case("create", ScriptedEngine([says("Hello!")]))
    message = result["message"]
    assert message["content"] == [{"type": "text", "text": "Hello!", "citations": None}]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("end_turn", 7)
    assert result["requestID"].startswith("req_01")


def test_stream_yields_deltas_and_the_message(run_case: RunCase) -> None:
    result = run_case("stream", ScriptedEngine([says("Hé \u2028\U0001f980!")]))
    assert result["text"] == result["finalText"] == "Hé \u2028\U0001f980!"
    assert result["final"] == result["whole"]
    assert result["final"]["content"] == result["blocks"]
    assert result["final"]["stop_reason"] == "end_turn"
    assert (result["kinds"][0], result["kinds"][-1]) == ("message_start", "message_stop")


def test_stream_events_are_in_order(run_case: RunCase) -> None:
    result = run_case("rawStream", ScriptedEngine([says("Hi")]))
    assert result["kinds"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert result["events"][0]["message"]["usage"]["input_tokens"] > 0


def test_count_tokens_equals_the_requests_usage(run_case: RunCase) -> None:
    result = run_case("countTokens", ScriptedEngine([says("ok", cached_tokens=4)]))
    usage = result["usage"]
    used = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert result["counted"] == result["beta"] == {"input_tokens": used}


def test_models_are_listed_and_retrieved(run_case: RunCase) -> None:
    result = run_case("models", ScriptedEngine([[]]), name="org/tiny")
    assert [model["id"] for model in result["listed"]] == ["org/tiny", "claude-local/org/tiny"]
    assert result["found"] == result["listed"]
    assert (result["absent"]["name"], result["absent"]["status"]) == ("NotFoundError", 404)


def test_a_batch_is_created_answered_and_deleted(run_case: RunCase) -> None:
    result = run_case("batches", ScriptedEngine([says("Hello!")]))
    assert result["made"]["processing_status"] == "in_progress"
    results = {line["custom_id"]: line["result"] for line in result["results"]}
    assert results["good"]["message"]["content"][0]["text"] == "Hello!"
    assert results["bad"]["error"]["error"]["type"] == "invalid_request_error"
    assert result["listed"] == [result["batch"]] == [result["canceled"]]
    assert result["deleted"]["type"] == "message_batch_deleted"
    assert result["absent"]["name"] == "NotFoundError"


def test_files_are_stored_referenced_and_deleted(run_case: RunCase) -> None:
    engine = ScriptedEngine([says("ok")])
    result = run_case("files", engine)
    assert result["content"] == "Once upon"
    assert result["listed"] == [result["file"]]
    assert "<document>\nOnce upon\n</document>" in prompts(engine)[0]
    assert result["deleted"]["type"] == "file_deleted"
    assert result["absent"]["name"] == "NotFoundError"


def test_a_thread_sends_only_new_messages(run_case: RunCase) -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris")])
    result = run_case("thread", engine)
    assert result["reply"]["content"][0]["text"] == "Paris"
    assert "hello<|end|>\n<|assistant|>\nHi<|end|>\n<|user|>\nwhere?" in prompts(engine)[1]
    assert result["absent"]["name"] == "ThreadNotFoundError"


def test_the_tool_runner_ends_without_a_tool_call(run_case: RunCase) -> None:
    result = run_case("toolRunner", ScriptedEngine([says("Sunny, I guess.")]))
    assert result["final"]["content"][0]["text"] == "Sunny, I guess."


def test_every_status_raises_its_own_error(run_case: RunCase) -> None:
    result = run_case("errors", ScriptedEngine([says("no")]))
    assert {
        name: (error["name"], error["status"], error["type"]) for name, error in result.items()
    } == {
        "bad": ("BadRequestError", 400, "invalid_request_error"),
        "long": ("BadRequestError", 400, "invalid_request_error"),
        "large": ("ContentTooLargeError", 413, "request_too_large"),
        "key": ("AuthenticationError", 401, "authentication_error"),
        "forbidden": ("PermissionDeniedError", 403, "permission_error"),
        "method": ("APIError", 405, "invalid_request_error"),
    }
    assert all(error["requestID"].startswith("req_01") for error in result.values())
    assert "prompt is too long: 5006 tokens > 4096 maximum" in result["long"]["message"]


@pytest.mark.parametrize(
    ("error", "name", "kind"),
    [
        (EngineBusyError("Busy."), "OverloadedError", "overloaded_error"),
        (EngineFailedError("Out."), "InternalServerError", "api_error"),
    ],
)
@pytest.mark.parametrize("case", ["oneCall", "oneStream"])
def test_a_failing_engine_raises_before_the_first_byte(
    run_case: RunCase, error: Exception, name: str, kind: str, case: str
) -> None:
    result = run_case(case, ScriptedEngine([[error]]))
    assert (result["name"], result["type"]) == (name, kind)


def test_a_failing_engine_raises_in_the_stream(run_case: RunCase) -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    result = run_case("oneStream", ScriptedEngine([script]))
    assert (result["type"], result["text"]) == ("overloaded_error", "Hi")
    assert "The engine worker ended." in result["message"]


def test_a_busy_engine_is_retried_after_the_given_delay(run_case: RunCase) -> None:
    engine = ScriptedEngine([[EngineBusyError("Busy.", retry_after_s=1)], says("Hi")])
    result = run_case("retried", engine)
    assert result["answered"]["content"][0]["text"] == "Hi"
    assert result["elapsedMs"] >= 1000
    assert len(engine.generations) == 2


def test_an_error_that_a_retry_cannot_fix_is_not_retried(run_case: RunCase) -> None:
    engine = ScriptedEngine([[EngineFailedError("No.")], says("Hi")])
    assert run_case("retried", engine)["name"] == "InternalServerError"
    assert len(engine.generations) == 1


@pytest.mark.anyio
async def test_an_aborted_stream_frees_its_slot(modules: Path) -> None:
    engine = ScriptedEngine([[Started(0), Token(65), anyio.Event()]])
    async with listening(app_of(engine)) as url:
        result = await anyio.to_thread.run_sync(run_case_at, modules, "aborted", url)
        with anyio.fail_after(10):
            await engine.left.wait()
    assert result["name"] == "APIUserAbortError"
