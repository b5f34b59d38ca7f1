"""Record the requests of the real Claude Code in these tests, with a server of scripted answers.

The model is trained after these texts and validated with these requests (trained.py). They are in
no file of this repository.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from pensieve.api.messages.message import AnswerContent, TextContent, ToolUseContent
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.families.plain import DIALECT
from pensieve.dialects.format_calls import format_calls
from pensieve.paths import under_home
from tests.claude.claude_code import ClaudeCode
from tests.cli.fake_server import MODEL, Event, FakeServer, health, message, serving
from tests.clients.installed import claude_code
from tests.e2e.installation import Installation
from tests.support.trained_model import Lesson

CONTEXT_TOKENS = 32_768
CHARS_PER_TOKEN = 3
Answer = ToolCall | str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `pensieve claude`."""

    arguments: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Recorder:
    """The script of a server that records requests."""

    task: str
    answers: Sequence[Answer]  # to requests with `task`, by their number of tool results
    reply: str  # to all other requests

    def answer_to(self, body: Mapping[str, Any]) -> Answer:
        blocks = [block for turn in body["messages"] for block in blocks_of(turn["content"])]
        if not any(self.task in block.get("text", "") for block in blocks):
            return self.reply
        return self.answers[sum(block["type"] == "tool_result" for block in blocks)]

    def record(self, runs: Iterable[Run]) -> list[Lesson]:
        """Return the requests of these runs, one after another in one home, and their answers."""
        lessons: list[Lesson] = []

        def events_for(body: Event) -> list[Event]:
            answer, sign = self.answer_to(body), uuid4().hex
            lessons.append(Lesson(body, _text_of(answer), _content(answer, sign)))
            return _events(body, answer, sign)

        with TemporaryDirectory() as folder, serving() as server:
            server.answer_to = events_for
            server.healths = lambda: health() | {"context_tokens": CONTEXT_TOKENS}
            home, work = Path(folder, "home"), Path(folder, "work")
            home.mkdir()
            work.mkdir()
            path = f"{claude_code()}{os.pathsep}{os.environ['PATH']}"
            with running_server(Path(folder, "pensieve"), server) as installation:
                for run in runs:
                    ClaudeCode(home, work, path).run(installation, *run.arguments, stdin=run.stdin)
        return lessons


@contextmanager
def running_server(home: Path, server: FakeServer) -> Iterator[Installation]:
    """Make a home in which `server` is the running server."""
    paths = under_home(home)
    address = Address("127.0.0.1", server.server_port, MODEL, "cpu")
    with server_lock.acquire(paths) as is_acquired:
        assert is_acquired
        with publish(paths, own_record(address, service="")):
            yield Installation(home, server.server_port)


def _content(answer: Answer, sign: str) -> tuple[AnswerContent, ...]:
    """Return the content blocks of an answer."""
    if isinstance(answer, str):
        return (TextContent(type="text", text=answer),)
    use = {"id": f"toolu_{sign}", "name": answer.name, "input": dict(answer.arguments)}
    return (ToolUseContent.model_validate({"type": "tool_use", **use}),)


def _events(body: Event, answer: Answer, sign: str) -> list[Event]:
    """Return the events of an answer.

    Their prompt tokens make the client compact a conversation with two long papers.
    """
    tokens = len(json.dumps(body)) // CHARS_PER_TOKEN
    start_message = {
        # The client merges answers with the same id.
        "id": f"msg_{sign}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": tokens, "output_tokens": 1},
    }
    start = {"type": "message_start", "message": start_message}
    if isinstance(answer, str):
        return [start, *message(answer)[1:]]
    use = {"type": "tool_use", "id": f"toolu_{sign}", "name": answer.name, "input": {}}
    delta = {"type": "input_json_delta", "partial_json": json.dumps(answer.arguments)}
    return [
        start,
        {"type": "content_block_start", "index": 0, "content_block": use},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        *message(stop_reason="tool_use")[-2:],
    ]


def _text_of(answer: Answer) -> str:
    return answer if isinstance(answer, str) else format_calls(DIALECT.calls, [answer])


def blocks_of(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
