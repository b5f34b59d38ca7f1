"""Golden transcripts: the server's output in each situation of a stream, byte for byte except ids.

`pytest tests/server/messages/test_golden.py --regenerate` rewrites golden/; review the difference
before committing it.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from pensieve.dialects.dialect import ThinkingForm
from pensieve.dialects.families import plain
from pensieve.engine.generation import Finished, Prefilled, Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from pensieve.server.app import AppParts
from pensieve.server.http.event_stream import PingInterval
from tests.server.serving import CALL, app_of, in_memory, stream_by_hand
from tests.support.fakes import ScriptedEngine, Step, says

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parents[1] / "golden"
STREAM = CALL | {"stream": True}
PREFILL = [*CALL["messages"], {"role": "assistant", "content": "The answer is "}]
EPHEMERAL = {"type": "ephemeral"}
MARKED = {
    "system": [{"type": "text", "text": "be brief", "cache_control": EPHEMERAL | {"ttl": "1h"}}],
    "cache_control": EPHEMERAL,
}

CLOCK = {"name": "clock", "input_schema": {"type": "object", "properties": {"zone": {}}}}
CALLS = (
    'Let me look.\n<tool_call>\n{"name": "clock", "arguments": {"zone": "\u00e9\\n"}}\n</tool_call>'
    '\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
THINKER = replace(plain.DIALECT, thinking=ThinkingForm())
THOUGHT = "<think>\nHm, yes.\n</think>\n\nHello."
THINKING = STREAM | {"thinking": {"type": "adaptive"}}

_ID = re.compile(r"\b(msg|req|toolu)_01[0-9A-Za-z]{22}\b")
_SIGNATURE = re.compile(r"pensieve1\.[0-9A-Za-z_-]{16}")
_PINGS = re.compile(r'(event: ping\ndata: \{"type":"ping"\}\n\n)+')


def normalised(text: str) -> str:
    """Replace ids by their kind and runs of pings by one: their number depends on the clock."""
    return _SIGNATURE.sub("pensieve1.name", _PINGS.sub(r"\1", _ID.sub(r"\1_01", text)))


def transcript(response: httpx.Response) -> str:
    head = f"HTTP {response.status_code} {response.headers['content-type']}"
    retry = [f"{name}: {value}" for name, value in response.headers.items() if "retry" in name]
    return "\n".join([head, *retry, "", response.text.rstrip("\n"), ""])


async def answer_of(script: list[Step], *calls: dict[str, Any], **app: Any) -> str:
    async with in_memory(app_of(ScriptedEngine([script]), **app)) as client:
        responses = [await client.post("/v1/messages", json=call) for call in calls or (STREAM,)]
    return "\n".join(map(transcript, responses))


async def thread() -> str:
    async with in_memory(app_of(ScriptedEngine([says("Hi"), says("Paris")]))) as client:
        first = await client.post("/v1/messages", json=CALL | {"thread": {"type": "create"}})
        following = {"type": "continue", "previous_message_id": first.json()["id"]}
        second = await client.post("/v1/messages", json=STREAM | {"thread": following})
        third = await client.post("/v1/messages", json=STREAM | {"thread": following})
    return "\n".join(map(transcript, (first, second, third)))


async def pings() -> str:
    """Silence before the first event, and between two."""
    first, second = anyio.Event(), anyio.Event()
    script = [Started(0), Prefilled(5), first, *says("Hi")[1:2], second, *says("Hi")[2:]]
    written: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        written.append(message.get("body", b"").decode())
        pinged = "".join(written).count("event: ping")
        if pinged >= 3:
            first.set()
        if first.is_set() and written[-1].startswith("event: ping") and "text_delta" in written[-2]:
            second.set()

    await stream_by_hand(
        app_of(ScriptedEngine([script]), parts=AppParts(ping_interval=PingInterval(ping_s=0.02))),
        send,
    )
    return "".join(written)


SITUATIONS: dict[str, Callable[[], Awaitable[str]]] = {
    "text": lambda: answer_of(says("Hi")),
    "text_whole": lambda: answer_of(says("Hi"), CALL),
    "line_separators_and_emoji": lambda: answer_of(says("a\u2028\u2029\x85\n🙂\x00")),
    "stop_sequence": lambda: answer_of(says("one STOP two"), STREAM | {"stop_sequences": ["STOP"]}),
    "stop_sequence_first": lambda: answer_of(says("STOP"), STREAM | {"stop_sequences": ["STOP"]}),
    "max_tokens": lambda: answer_of(says("Hello"), STREAM | {"max_tokens": 3}),
    "context_exceeded": lambda: answer_of(
        says("y" * 99), STREAM | {"max_tokens": 32000}, context_tokens=15
    ),
    "prompt_too_long": lambda: answer_of(says("no"), STREAM, context_tokens=10),
    "prefill": lambda: answer_of(says(" 42"), STREAM | {"messages": PREFILL}),
    "empty_answer": lambda: answer_of([Started(0), Finished("stop_token", 1)]),
    "no_answer_wanted": lambda: answer_of(says("no"), CALL | {"max_tokens": 0}),
    "cached_and_marked": lambda: answer_of(says("Hi", cached_tokens=3), STREAM | MARKED),
    "context_management": lambda: answer_of(
        says("Hi"),
        STREAM | {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
    ),
    "error_before": lambda: answer_of([EngineBusyError("Overloaded")]),
    "error_in_the_middle": lambda: answer_of(
        [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    ),
    "error_after_the_start": lambda: answer_of([Started(0), ZeroDivisionError("secret")]),
    "invalid": lambda: answer_of(says("no"), STREAM | {"max_tokens": "many"}),
    "tool_use": lambda: answer_of(says(CALLS), STREAM | {"tools": [CLOCK], "max_tokens": 400}),
    "tool_use_whole": lambda: answer_of(says(CALLS), CALL | {"tools": [CLOCK], "max_tokens": 400}),
    "tool_use_cut": lambda: answer_of(says(CALLS), STREAM | {"tools": [CLOCK], "max_tokens": 71}),
    "thinking": lambda: answer_of(says(THOUGHT), THINKING, dialect=THINKER),
    "thinking_hidden": lambda: answer_of(
        says(THOUGHT),
        STREAM | {"thinking": {"type": "adaptive", "display": "omitted"}},
        dialect=THINKER,
    ),
    "thread": thread,
    "pings": pings,
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_stream_matches_golden_transcript(
    situation: str, request: pytest.FixtureRequest
) -> None:
    written = normalised(await SITUATIONS[situation]())
    file = GOLDEN / f"{situation}.sse"
    if request.config.getoption("--regenerate"):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


def test_every_transcript_has_its_situation() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == SITUATIONS.keys()
