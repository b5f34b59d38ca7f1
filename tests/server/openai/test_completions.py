"""`POST /v1/completions` in memory: text without a chat template, its answer and its errors."""

from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.engine.generation import Sampling, Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from tests.server.messages.test_golden import THINKER
from tests.server.openai.calls import chunks_of
from tests.server.serving import app_of, in_memory
from tests.support.fakes import STOP_TOKEN, ByteTokenizer, ScriptedEngine, says

pytestmark = pytest.mark.anyio
PATH = "/v1/completions"
CALL: dict[str, Any] = {"model": "any", "prompt": "def f("}


async def post(engine: ScriptedEngine, call: dict[str, Any], **app: Any) -> httpx.Response:
    async with in_memory(app_of(engine, **app)) as client:
        return await client.post(PATH, json=call)


async def test_prompt_is_the_text_alone() -> None:
    engine = ScriptedEngine([says("x): pass", cached_tokens=2)])
    answer = (await post(engine, CALL)).json()
    assert (answer["object"], answer["model"]) == ("text_completion", "any")
    assert answer["choices"][0]["text"] == "x): pass"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    (generation,) = engine.generations
    assert ByteTokenizer().decode(generation.prompt_tokens) == "def f("
    assert (generation.max_tokens, generation.grammar) == (16, None)
    assert generation.stop_tokens == {STOP_TOKEN}


@given(st.text(max_size=20))
@settings(max_examples=30)
def test_answer_is_every_character_that_was_generated(text: str) -> None:
    anyio.run(_whole_and_streamed, text)


@pytest.mark.parametrize(
    "text", ["\n\n  x\n ", "<think>a</think>b", '<tool_call>{"name": 1}</tool_call>', "</think> x"]
)
async def test_marks_and_blanks_are_text(text: str) -> None:
    await _whole_and_streamed(text)


async def _whole_and_streamed(text: str) -> None:
    call = CALL | {"max_tokens": 1000}
    engine = ScriptedEngine([says(text)])
    whole = (await post(engine, call, dialect=THINKER)).json()["choices"][0]
    streamed = await post(engine, call | {"stream": True}, dialect=THINKER)
    choices = [chunk["choices"][0] for chunk in chunks_of(streamed.text)]
    assert "".join(one["text"] for one in choices) == whole["text"] == text
    assert [one["finish_reason"] for one in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == whole["finish_reason"] == "stop"


async def test_sampling_and_stop_are_used() -> None:
    engine = ScriptedEngine([says("one\ntwo")])
    call = CALL | {"temperature": 0.5, "seed": 3, "stop": ["\n"], "max_tokens": 50}
    answer = (await post(engine, call)).json()["choices"][0]
    assert (answer["text"], answer["finish_reason"]) == ("one", "stop")
    assert engine.generations[0].sampling == Sampling(0.5, seed=3)


async def test_stream_with_usage_ends_with_it() -> None:
    call = CALL | {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = chunks_of((await post(ScriptedEngine([says("x")]), call)).text)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 2)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ["a", "b"]}, "prompt", None),
        ({"prompt": ""}, "prompt", None),
        ({"suffix": "x"}, "suffix", None),
        ({"echo": True}, "echo", None),
        ({"prompt": "x" * 5000}, "prompt", "context_length_exceeded"),
        ({"prompt": "x" * 500_000}, "prompt", "context_length_exceeded"),
    ],
)
async def test_invalid_request_is_refused(
    fields: dict[str, object], param: str, code: str | None
) -> None:
    engine = ScriptedEngine([says("no")])
    response = await post(engine, CALL | fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert engine.generations == []


async def test_engine_errors_are_those_of_chat() -> None:
    busy = await post(ScriptedEngine([[EngineBusyError("Busy.")]]), CALL)
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "2")
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("Died.")]
    response = await post(ScriptedEngine([script]), CALL | {"stream": True})
    assert chunks_of(response.text)[-1]["error"]["code"] == "server_is_overloaded"
