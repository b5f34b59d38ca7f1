"""OpenAI's npm package under node, against one server with an engine that answers by the prompt."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from pensieve.engine.generation import Generation, Started, Token
from pensieve.errors import WorkerDiedError
from tests.clients.installed import FOREIGN, openai_modules
from tests.clients.serving import ToolCallingEngine, serving
from tests.clients.test_python_tools import THINKING_DIALECT
from tests.server.serving import KEY
from tests.support.fakes import ByteTokenizer, ScriptedEngine, says
from tests.support.programs import run_program

CLOCK = {"clock": {"zone": "…"}}
WEATHER = {"city": "Rome", "degrees": 20}
BREAKING = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
CONTEXT_TOKENS = 16_384

Answered = Callable[[str], Any]


class Engine(ToolCallingEngine):
    """Breaks off if a prompt says so."""

    def generate(self, generation: Generation) -> AbstractAsyncContextManager[Any]:
        prompt = ByteTokenizer().decode(generation.prompt_tokens)
        if "break off" in prompt:
            return ScriptedEngine([BREAKING]).generate(generation)
        if prompt == "def":
            return ScriptedEngine([says("Hello.")]).generate(generation)
        return super().generate(generation)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    """A function that returns what a case of openai_sdk.cjs returned."""
    modules = openai_modules()
    text = "<think>\nHm.\n</think>\n\nHello."
    engine = Engine(text, inputs=CLOCK, structured_output=WEATHER)
    model = {"dialect": THINKING_DIALECT, "context_tokens": CONTEXT_TOKENS}
    with serving(engine, tmp_path_factory.mktemp("openai"), **model) as url:
        done = run_program(
            ["node", str(FOREIGN / "openai_sdk.cjs"), url, KEY],
            env={"NODE_PATH": str(modules), "PATH": os.environ["PATH"]},
            timeout=120,
        )
    results = json.loads(done.stdout)

    def answered(case: str) -> Any:
        assert "answered" in results[case], results[case]
        return results[case]["answered"]

    return answered


def test_a_completion_is_returned(answered: Answered) -> None:
    completion = answered("chat")
    (choice,) = completion["choices"]
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello.", "Hm.")
    assert (choice["finish_reason"], completion["object"]) == ("stop", "chat.completion")
    assert completion["request_id"].startswith("req_")


def test_chunks_end_with_the_usage(answered: Answered) -> None:
    *chunks, last = answered("chatChunks")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello."
    assert (last["choices"], last["usage"]["total_tokens"] > 0) == ([], True)


def test_stream_helpers_return_what_was_streamed(answered: Answered) -> None:
    chat = answered("chatHelper")
    assert chat["final"]["choices"][0]["message"]["content"] == "".join(chat["pieces"]) == "Hello."
    response = answered("responseHelper")
    assert response["final"]["output_text"] == "".join(response["pieces"]) == "Hello."
    assert response["final"]["output"][0]["summary"][0]["text"] == "Hm."


def test_the_tool_runner_ends_in_a_text(answered: Answered) -> None:
    result = answered("chatTools")
    assert (result["text"], result["inputs"]) == ("Hello.", [{"zone": "Rome"}])
    reasons = [each["choices"][0]["finish_reason"] for each in result["completions"]]
    assert reasons == ["tool_calls", "stop"]


def test_a_tool_loop_of_responses_ends_in_a_text(answered: Answered) -> None:
    result = answered("responseTools")
    assert result["input"] == {"zone": "Rome"}
    assert (result["second"]["output_text"], result["second"]["status"]) == ("Hello.", "completed")
    usage = result["second"]["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] >= 0.95 * usage["input_tokens"]


def test_parsed_answers_have_their_schema(answered: Answered) -> None:
    (choice,) = answered("chatParse")["choices"]
    assert choice["message"]["parsed"] == WEATHER
    assert answered("responseParse")["output_parsed"] == WEATHER


def test_a_response_is_returned_whole_and_in_events(answered: Answered) -> None:
    whole, events = answered("response"), answered("responseEvents")
    assert (whole["output_text"], whole["status"]) == ("Hello.", "completed")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "Hello."
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")


def test_a_stored_response_is_retrieved_listed_and_deleted(answered: Answered) -> None:
    result = answered("storedResponse")
    created = result["created"]
    assert result["retrieved"]["output"] == created["output"]
    assert [item["content"][0]["text"] for item in result["items"]] == ["hello"]
    assert result["counted"]["input_tokens"] == created["usage"]["input_tokens"]
    assert (result["absent"]["name"], result["absent"]["code"]) == ("NotFoundError", "not_found")


def test_models_are_listed_and_found(answered: Answered) -> None:
    result = answered("models")
    assert result["listed"] == result["found"]
    assert [model["id"] for model in result["listed"]] == ["bytes", "claude-local/bytes"]


def test_a_text_is_completed_in_pieces(answered: Answered) -> None:
    pieces = [choice["text"] for chunk in answered("text") for choice in chunk["choices"]]
    assert "".join(pieces) == "Hello."
    assert len(pieces) > 2


def test_a_broken_stream_is_an_error(answered: Answered) -> None:
    assert "The engine worker ended." in answered("brokenChat")["message"]
    failed = answered("brokenResponse")["answered"]
    assert failed["status"] == "failed"
    assert "The engine worker ended." in failed["error"]["message"]
