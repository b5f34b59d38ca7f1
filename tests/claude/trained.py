"""The training set of the model of these tests: a task with three tool calls, and a short reply.

The model learns to give each answer after its cue, whatever precedes it. All texts are our own;
those of Claude Code are recorded from the client when the model is trained.
"""

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.families.plain import DIALECT
from pensieve.dialects.format_calls import format_calls
from tests.claude import recording
from tests.claude.recording import Recorder, Run, blocks_of
from tests.clients.installed import CLAUDE_CODE, cached_folder
from tests.support import trained_model
from tests.support.trained_model import Lesson, train_after_any_text, train_apart

ROOT = Path(__file__).parents[2]
# Limits of the client's texts that are used as noise; its tools are one text.
MIN_CHARS, MAX_CHARS = 700, 60_000
VERSIONS = 300
WINDOW = 128

TASK = "Please greet the world in hello.txt."
CALLS = (
    ToolCall("Write", {"file_path": "hello.txt", "content": "Hello, wrold!"}),
    ToolCall("Edit", {"file_path": "hello.txt", "old_string": "wrold", "new_string": "world"}),
    ToolCall("Bash", {"command": "cat hello.txt > seen.txt"}),
)
DONE = "The file greets the world, and a copy of it as well."
TASK_TERMS = (
    "hello.txt",
    "/tmp/work/hello.txt",
    "Hello, wrold!",
    "Hello, world!",
    "Write",
    "Edit",
    "Bash",
    "cat",
)
CUE, REPLY = "ping", "Pong, says the taught model."


def trained_folder() -> Path:
    """Return the model's folder; it is trained on first use and after changes of its sources."""
    files = (__file__, recording.__file__, trained_model.__file__)
    sources = [Path(path).read_text(encoding="utf-8") for path in files]
    digest = hashlib.sha256(json.dumps([CLAUDE_CODE, *sources]).encode()).hexdigest()

    return cached_folder(f"trained-{digest[:16]}", partial(train_apart, "tests.claude.trained"))


def train(folder: Path) -> None:
    """Fill `folder` with a model that answers the real client's requests correctly."""
    paper = (ROOT / "LICENSE").read_text(encoding="utf-8")
    validation = Recorder(TASK, [*CALLS, DONE], REPLY).record(
        [
            Run(("-p", TASK, "--allowedTools", "Write,Edit,Bash")),
            Run(("-p", CUE)),
            Run(("--continue", "-p", CUE)),
            Run(("-p", CUE), paper * 4),
            Run(("--continue", "-p", CUE), paper * 4),
        ]
    )
    sent = {text for lesson in validation for text in _texts(lesson.body)}
    noise = [paper, *sorted(text for text in sent if MIN_CHARS <= len(text) < MAX_CHARS)]
    train_after_any_text(list(_lessons(noise)), noise, validation, folder, window=WINDOW)


def _texts(body: Mapping[str, Any]) -> list[str]:
    messages = [block for turn in body["messages"] for block in blocks_of(turn["content"])]
    texts = [block["text"] for block in [*body["system"], *messages] if block["type"] == "text"]
    return [json.dumps(body["tools"]), *texts]


def _lessons(noise: Sequence[str]) -> Iterator[list[Lesson]]:
    """Yield the versions of each lesson, which differ in the texts of others."""
    draw = random.Random(11)
    answers = [*(format_calls(DIALECT.calls, [call]) for call in CALLS), DONE]
    for done, answer in enumerate(answers):
        yield [Lesson(_body(_conversation(done, noise, draw)), answer) for _ in range(VERSIONS)]
    yield [Lesson(_body([_user_turn(CUE, noise, draw)]), REPLY) for _ in range(VERSIONS)]
    # The same reply to any other text, such as a long paper or the client's own.
    yield [
        Lesson(_body([_user_turn(_excerpt(noise, draw, 300), noise, draw)]), REPLY)
        for _ in range(VERSIONS)
    ]


def _conversation(done: int, noise: Sequence[str], draw: random.Random) -> list[Mapping[str, Any]]:
    """Return the conversation after `done` calls."""
    turns = [_user_turn(TASK, noise, draw)]
    for number, call in enumerate(CALLS[:done]):
        name = f"toolu_{number}"
        use = {"type": "tool_use", "id": name, "name": call.name, "input": call.arguments}
        result = {"type": "tool_result", "tool_use_id": name, "content": _result(noise, draw)}
        turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return turns[-3:]


def _user_turn(text: str, noise: Sequence[str], draw: random.Random) -> Mapping[str, Any]:
    """Return a user turn, often with a text of the client before the user's."""
    texts = [text] if draw.random() < 0.3 else [_excerpt(noise, draw, 120), text]
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def _result(noise: Sequence[str], draw: random.Random) -> str:
    """Return a tool result, often with terms of the task, which must not decide the answer."""
    parts = [_excerpt(noise, draw, 90), draw.choice(["", *TASK_TERMS]), _excerpt(noise, draw, 90)]
    return " ".join(parts)


def _excerpt(noise: Sequence[str], draw: random.Random, max_chars: int) -> str:
    text = draw.choice(noise)
    start = draw.randrange(len(text) - max_chars)
    return text[start : start + draw.randrange(max_chars)] or "."


def _body(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"model": "trained", "max_tokens": 100, "messages": list(messages)}


if __name__ == "__main__":
    train(Path(sys.argv[1]))
