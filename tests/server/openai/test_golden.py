"""Golden transcripts of chat and text completions, byte for byte except ids and times.

`pytest tests/server/openai/test_golden.py --regenerate` rewrites golden/; review the difference
before committing it.
"""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.generation import Finished, Logprobs, Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from tests.server.messages.test_golden import CALLS, THINKER, THOUGHT, transcript
from tests.server.openai.calls import CALL, CLOCK, PATCH, STREAM
from tests.server.serving import app_of, in_memory
from tests.support.fakes import ScriptedEngine, Step, says

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent / "golden"
USAGE = STREAM | {"stream_options": {"include_usage": True}}
SCORED: list[Step] = [
    Started(0),
    *(
        Token(byte, Logprobs(-0.25 * at, ((0xC3, -0.5),)))
        for at, byte in enumerate("é!".encode(), 1)
    ),
    Finished("stop_token", 4),
]
PATCHED = '<tool_call>\n{"name": "patch", "arguments": {"input": "a\\nb"}}\n</tool_call>'

CHAT = "/v1/chat/completions"
TEXT = {"model": "any", "prompt": "def"}

_ID = re.compile(r"\b(chatcmpl-|cmpl-|call_)01[0-9A-Za-z]{22}\b")
_CREATED = re.compile(r'"created":[0-9]+')
_KEEP_ALIVES = re.compile(r"(: keep-alive\n\n)+")


def normalised(text: str) -> str:
    text = _CREATED.sub('"created":0', _ID.sub(r"\g<1>01", text))
    return _KEEP_ALIVES.sub(r"\1", text)


async def answer_of(script: list[Step], call: dict[str, Any], path: str = CHAT, **app: Any) -> str:
    async with in_memory(app_of(ScriptedEngine([script]), **app)) as client:
        return transcript(await client.post(path, json=call))


async def completion_of(script: list[Step], **fields: Any) -> str:
    return await answer_of(script, TEXT | fields, "/v1/completions")


SITUATIONS: dict[str, Callable[[], Awaitable[str]]] = {
    "text": lambda: answer_of(says("Hi"), STREAM),
    "text_whole": lambda: answer_of(says("Hi", cached_tokens=3), CALL),
    "usage": lambda: answer_of(says("Hi", cached_tokens=3), USAGE),
    "line_separators_and_emoji": lambda: answer_of(says("a\u2028\u2029\x85\n🙂\x00"), STREAM),
    "stop": lambda: answer_of(says("one\ntwo"), STREAM | {"stop": "\n"}),
    "length": lambda: answer_of(says("Hello"), STREAM | {"max_tokens": 3}),
    "empty_answer": lambda: answer_of([Started(0), Finished("stop_token", 1)], STREAM),
    "choices": lambda: answer_of(says("Hi"), USAGE | {"n": 2}),
    "logprobs": lambda: answer_of(SCORED, STREAM | {"logprobs": True, "top_logprobs": 1}),
    "logprobs_whole": lambda: answer_of(SCORED, CALL | {"logprobs": True, "top_logprobs": 1}),
    "tool_calls": lambda: answer_of(says(CALLS), STREAM | {"tools": [CLOCK]}),
    "tool_calls_whole": lambda: answer_of(says(CALLS), CALL | {"tools": [CLOCK]}),
    "tool_calls_cut": lambda: answer_of(says(CALLS), STREAM | {"tools": [CLOCK], "max_tokens": 71}),
    "custom_tool": lambda: answer_of(says(PATCHED), STREAM | {"tools": [PATCH]}),
    "reasoning": lambda: answer_of(says(THOUGHT), STREAM, dialect=THINKER),
    "reasoning_whole": lambda: answer_of(says(THOUGHT), CALL, dialect=THINKER),
    "prompt_too_long": lambda: answer_of(says("no"), STREAM, context_tokens=7),
    "invalid": lambda: answer_of(says("no"), STREAM | {"messages": [{"role": "user"}, 5]}),
    "error_before": lambda: answer_of([EngineBusyError("Overloaded")], STREAM),
    "error_in_the_middle": lambda: answer_of(
        [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")], STREAM
    ),
    "error_after_the_start": lambda: answer_of([Started(0), ZeroDivisionError("secret")], STREAM),
    "completion": lambda: completion_of(
        says(" f():", cached_tokens=1), stream=True, stream_options={"include_usage": True}
    ),
    "completion_whole": lambda: completion_of(says(" f():", cached_tokens=1)),
    "completion_length": lambda: completion_of(says(" f():"), stream=True, max_tokens=3),
    "completion_invalid": lambda: completion_of(says("no"), prompt=["a", "b"]),
    "completion_error": lambda: completion_of(
        [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")], stream=True
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_answer_matches_golden_transcript(
    situation: str, request: pytest.FixtureRequest
) -> None:
    written = normalised(await SITUATIONS[situation]())
    file = GOLDEN / f"{situation}.sse"
    if request.config.getoption("--regenerate"):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


def test_every_transcript_has_its_situation() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == SITUATIONS.keys()
