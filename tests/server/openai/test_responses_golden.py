"""Golden transcripts of `POST /v1/responses`, byte for byte except ids and times.

`pytest tests/server/openai/test_responses_golden.py --regenerate` rewrites responses_golden/;
review the difference before committing it.
"""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.generation import Finished, Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from tests.server.messages.test_golden import THINKER, THOUGHT, transcript
from tests.server.openai.calls import PATCHED, RESPOND, RESPOND_STREAM, SPACE, SPACED
from tests.server.serving import app_of, in_memory
from tests.support.fakes import ScriptedEngine, Step, says

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent / "responses_golden"
PATCH = {"type": "custom", "name": "patch"}
SUMMARY = RESPOND_STREAM | {"reasoning": {"summary": "auto"}}
SEALED = RESPOND | {"include": ["reasoning.encrypted_content"], "store": False}

_ID = re.compile(r"\b(resp|msg|rs|fc|ctc|call)_01[0-9A-Za-z]{22}")
_TIME = re.compile(r'"(created_at|completed_at)":[0-9]+')
_SIGNATURE = re.compile(r"pensieve1\.[0-9A-Za-z_-]{16}")
_NUMBER = re.compile(r'"sequence_number":[0-9]+')


def normalised(text: str) -> str:
    text = _TIME.sub(r'"\1":0', _ID.sub(r"\1_01", text))
    return _SIGNATURE.sub("pensieve1.name", without_repetitions(text))


def without_repetitions(text: str) -> str:
    """Return a stream with one `response.in_progress`, and renumbered: how often it is repeated
    depends on the clock.
    """
    blocks = text.split("\n\n")
    begun = [at for at, block in enumerate(blocks) if "event: response.in_progress" in block]
    kept = [block for at, block in enumerate(blocks) if at not in begun[1:]]
    events = (at for at in range(len(kept)))
    return "\n\n".join(
        _NUMBER.sub(lambda _: f'"sequence_number":{next(events)}', block) for block in kept
    )


async def answer_of(script: list[Step], call: dict[str, Any], **app: Any) -> str:
    async with in_memory(app_of(ScriptedEngine([script]), **app)) as client:
        return transcript(await client.post("/v1/responses", json=call))


SITUATIONS: dict[str, Callable[[], Awaitable[str]]] = {
    "text": lambda: answer_of(says("Hi", cached_tokens=3), RESPOND_STREAM),
    "text_whole": lambda: answer_of(says("Hi", cached_tokens=3), RESPOND),
    "line_separators_and_emoji": lambda: answer_of(
        says("a\u2028\u2029\x85\n🙂\x00"), RESPOND_STREAM
    ),
    "length": lambda: answer_of(says("Hello"), RESPOND_STREAM | {"max_output_tokens": 3}),
    "empty_answer": lambda: answer_of([Started(0), Finished("stop_token", 1)], RESPOND_STREAM),
    "no_input": lambda: answer_of(says("no"), {"input": "", "max_output_tokens": 1}),
    "calls": lambda: answer_of(says(SPACED), RESPOND_STREAM | {"tools": [SPACE]}),
    "calls_cut": lambda: answer_of(
        says(SPACED), RESPOND | {"tools": [SPACE], "max_output_tokens": 76}
    ),
    "custom_tool": lambda: answer_of(says(PATCHED), RESPOND_STREAM | {"tools": [PATCH]}),
    "reasoning": lambda: answer_of(says(THOUGHT), RESPOND_STREAM, dialect=THINKER),
    "reasoning_summary": lambda: answer_of(says(THOUGHT), SUMMARY, dialect=THINKER),
    "reasoning_sealed": lambda: answer_of(says(THOUGHT), SEALED, dialect=THINKER),
    "prompt_too_long": lambda: answer_of(says("no"), RESPOND_STREAM, context_tokens=7),
    "invalid": lambda: answer_of(says("no"), RESPOND_STREAM | {"input": [{"role": "robot"}]}),
    "unknown_previous": lambda: answer_of(says("no"), RESPOND | {"previous_response_id": "resp_0"}),
    "unknown_reference": lambda: answer_of(
        says("no"), RESPOND | {"input": [{"type": "item_reference", "id": "rs_0"}]}
    ),
    "error_before": lambda: answer_of([EngineBusyError("Overloaded")], RESPOND_STREAM),
    "error_in_the_middle": lambda: answer_of(
        [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")],
        RESPOND_STREAM,
    ),
    "error_after_the_start": lambda: answer_of(
        [Started(0), ZeroDivisionError("secret")], RESPOND_STREAM
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_responses_match_golden_transcripts(
    situation: str, request: pytest.FixtureRequest
) -> None:
    written = normalised(await SITUATIONS[situation]())
    file = GOLDEN / f"{situation}.sse"
    if request.config.getoption("--regenerate"):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


def test_every_transcript_has_its_situation() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == SITUATIONS.keys()
