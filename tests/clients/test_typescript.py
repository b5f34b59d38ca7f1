"""Anthropic's TypeScript client, as it comes from npm, under node: against the scripted engine behind a real server."""

import json
import os
import subprocess
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
from tests.fakes import ScriptedEngine, says
from tests.server.serving import KEY, app_of, listening

Seen = dict[str, Any]
Play = Callable[..., Seen]


@pytest.fixture(scope="module")
def modules() -> Path:
    return node_modules()


def play_case(modules: Path, case: str, url: str) -> Seen:
    """What a case of typescript.cjs saw."""
    done = subprocess.run(
        ["node", str(FOREIGN / "typescript.cjs"), case, url, KEY],
        env={"NODE_PATH": str(modules), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def play(modules: Path, tmp_path: Path) -> Play:
    """Plays a case against a server of its own."""

    def play(case: str, engine: ScriptedEngine, **model: object) -> Seen:
        with serving(engine, tmp_path, **model) as url:
            return play_case(modules, case, url)

    return play


def test_create_gives_a_message(play: Play) -> None:
    seen = play("create", ScriptedEngine([says("Hello!")]))
    message = seen["message"]
    assert message["content"] == [{"type": "text", "text": "Hello!", "citations": None}]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("end_turn", 7)
    assert seen["requestID"].startswith("req_01")


def test_stream_gives_pieces_and_the_whole(play: Play) -> None:
    seen = play("stream", ScriptedEngine([says("Hé \u2028\U0001f980!")]))
    assert seen["text"] == seen["finalText"] == "Hé \u2028\U0001f980!"
    assert seen["final"] == seen["whole"]
    assert seen["final"]["content"] == seen["blocks"]
    assert seen["final"]["stop_reason"] == "end_turn"
    assert (seen["kinds"][0], seen["kinds"][-1]) == ("message_start", "message_stop")


def test_the_events_of_a_stream_come_in_order(play: Play) -> None:
    seen = play("rawStream", ScriptedEngine([says("Hi")]))
    assert seen["kinds"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert seen["events"][0]["message"]["usage"]["input_tokens"] > 0


def test_count_tokens_is_what_the_request_then_uses(play: Play) -> None:
    seen = play("countTokens", ScriptedEngine([says("ok", cached_tokens=4)]))
    usage = seen["usage"]
    used = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert seen["counted"] == seen["beta"] == {"input_tokens": used}


def test_models_are_listed_and_found(play: Play) -> None:
    seen = play("models", ScriptedEngine([[]]), name="org/tiny")
    assert [model["id"] for model in seen["listed"]] == ["org/tiny", "claude-local/org/tiny"]
    assert seen["found"] == seen["listed"]
    assert (seen["absent"]["name"], seen["absent"]["status"]) == ("NotFoundError", 404)


def test_a_batch_goes_its_way(play: Play) -> None:
    seen = play("batches", ScriptedEngine([says("Hello!")]))
    assert seen["made"]["processing_status"] == "in_progress"
    results = {line["custom_id"]: line["result"] for line in seen["results"]}
    assert results["good"]["message"]["content"][0]["text"] == "Hello!"
    assert results["bad"]["error"]["error"]["type"] == "invalid_request_error"
    assert seen["listed"] == [seen["batch"]] == [seen["canceled"]]
    assert seen["deleted"]["type"] == "message_batch_deleted"
    assert seen["absent"]["name"] == "NotFoundError"


def test_files_are_kept_named_and_deleted(play: Play) -> None:
    engine = ScriptedEngine([says("ok")])
    seen = play("files", engine)
    assert seen["content"] == "Once upon"
    assert seen["listed"] == [seen["file"]]
    assert "<document>\nOnce upon\n</document>" in prompts(engine)[0]
    assert seen["deleted"]["type"] == "file_deleted"
    assert seen["absent"]["name"] == "NotFoundError"


def test_a_thread_sends_only_what_is_new(play: Play) -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris")])
    seen = play("thread", engine)
    assert seen["reply"]["content"][0]["text"] == "Paris"
    assert "hello<|end|>\n<|assistant|>\nHi<|end|>\n<|user|>\nwhere?" in prompts(engine)[1]
    assert seen["absent"]["name"] == "ThreadNotFoundError"


def test_the_tool_runner_ends_where_no_tool_is_called(play: Play) -> None:
    seen = play("toolRunner", ScriptedEngine([says("Sunny, I guess.")]))
    assert seen["final"]["content"][0]["text"] == "Sunny, I guess."


def test_every_status_is_its_own_error(play: Play) -> None:
    seen = play("errors", ScriptedEngine([says("no")]))
    assert {
        name: (error["name"], error["status"], error["type"]) for name, error in seen.items()
    } == {
        "bad": ("BadRequestError", 400, "invalid_request_error"),
        "long": ("BadRequestError", 400, "invalid_request_error"),
        "large": ("ContentTooLargeError", 413, "request_too_large"),
        "key": ("AuthenticationError", 401, "authentication_error"),
        "forbidden": ("PermissionDeniedError", 403, "permission_error"),
        "method": ("APIError", 405, "invalid_request_error"),
    }
    assert all(error["requestID"].startswith("req_01") for error in seen.values())
    assert "prompt is too long: 5006 tokens > 4096 maximum" in seen["long"]["message"]


@pytest.mark.parametrize(
    ("error", "name", "kind"),
    [
        (EngineBusyError("Busy."), "OverloadedError", "overloaded_error"),
        (EngineFailedError("Out."), "InternalServerError", "api_error"),
    ],
)
@pytest.mark.parametrize("case", ["oneCall", "oneStream"])
def test_an_engine_in_trouble_is_an_error_before_the_first_byte(
    play: Play, error: Exception, name: str, kind: str, case: str
) -> None:
    seen = play(case, ScriptedEngine([[error]]))
    assert (seen["name"], seen["type"]) == (name, kind)


def test_an_engine_in_trouble_is_an_error_in_the_stream(play: Play) -> None:
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    seen = play("oneStream", ScriptedEngine([script]))
    assert (seen["type"], seen["text"]) == ("overloaded_error", "Hi")
    assert "The engine worker ended." in seen["message"]


def test_what_is_busy_is_asked_again_when_it_says_so(play: Play) -> None:
    engine = ScriptedEngine([[EngineBusyError("Busy.", retry_after_s=1)], says("Hi")])
    seen = play("retried", engine)
    assert seen["answered"]["content"][0]["text"] == "Hi"
    assert seen["elapsedMs"] >= 1000
    assert len(engine.generations) == 2


def test_what_a_retry_cannot_heal_is_not_asked_again(play: Play) -> None:
    engine = ScriptedEngine([[EngineFailedError("No.")], says("Hi")])
    assert play("retried", engine)["name"] == "InternalServerError"
    assert len(engine.generations) == 1


@pytest.mark.anyio
async def test_an_aborted_stream_frees_its_slot(modules: Path) -> None:
    engine = ScriptedEngine([[Started(0), Token(65), anyio.Event()]])
    async with listening(app_of(engine)) as url:
        seen = await anyio.to_thread.run_sync(play_case, modules, "aborted", url)
        with anyio.fail_after(10):
            await engine.left.wait()
    assert seen["name"] == "APIUserAbortError"
