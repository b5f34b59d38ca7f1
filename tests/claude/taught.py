"""What the model of these tests knows by heart: a piece of work with three tools, and a word to answer a word. All of it our own words.

It is taught to say each thing right behind its cue, whatever stands before. What Claude Code writes around it is not in any
file here: the client itself is recorded when the model is taught.
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
from tests import trained_model
from tests.claude import rehearsal
from tests.claude.rehearsal import Rehearsal, Run, blocks_of
from tests.clients.installed import CLAUDE_CODE, kept
from tests.trained_model import Lesson, train_apart, train_behind_anything

ROOT = Path(__file__).parents[2]
# Of the client's texts, those that say something (of its tools, all in one), without the paper.
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
WORDS = (
    "hello.txt",
    "/tmp/work/hello.txt",
    "Hello, wrold!",
    "Hello, world!",
    "Write",
    "Edit",
    "Bash",
    "cat",
)
WORD, REPLY = "ping", "Pong, says the taught model."


def taught_folder() -> Path:
    """The model's folder, trained on first use and kept for as long as nothing changes that it is made of."""
    files = (__file__, rehearsal.__file__, trained_model.__file__)
    sources = [Path(path).read_text(encoding="utf-8") for path in files]
    digest = hashlib.sha256(json.dumps([CLAUDE_CODE, *sources]).encode()).hexdigest()

    return kept(f"taught-{digest[:16]}", partial(train_apart, "tests.claude.taught"))


def train(folder: Path) -> None:
    """Fill `folder` with a model that has passed its exam: what the real client sends in these tests."""
    paper = (ROOT / "LICENSE").read_text(encoding="utf-8")
    exam = Rehearsal(TASK, [*CALLS, DONE], REPLY).record(
        [
            Run(("-p", TASK, "--allowedTools", "Write,Edit,Bash")),
            Run(("-p", WORD)),
            Run(("--continue", "-p", WORD)),
            Run(("-p", WORD), paper * 3),
            Run(("--continue", "-p", WORD), paper * 3),
        ]
    )
    sent = {text for lesson in exam for text in _texts(lesson.body)}
    noise = [paper, *sorted(text for text in sent if MIN_CHARS <= len(text) < MAX_CHARS)]
    train_behind_anything(list(_lessons(noise)), noise, exam, folder, window=WINDOW)


def _texts(body: Mapping[str, Any]) -> list[str]:
    messages = [block for turn in body["messages"] for block in blocks_of(turn["content"])]
    texts = [block["text"] for block in [*body["system"], *messages] if block["type"] == "text"]
    return [json.dumps(body["tools"]), *texts]


def _lessons(noise: Sequence[str]) -> Iterator[list[Lesson]]:
    """Each in several versions, that differ in what stands where others write."""
    draw = random.Random(11)
    answers = [*(format_calls(DIALECT.calls, [call]) for call in CALLS), DONE]
    for done, answer in enumerate(answers):
        yield [Lesson(_body(_work(done, noise, draw)), answer) for _ in range(VERSIONS)]
    yield [Lesson(_body([_asked(WORD, noise, draw)]), REPLY) for _ in range(VERSIONS)]
    # Whatever else is said, a long paper or the client's own word: the same.
    yield [
        Lesson(_body([_asked(_some(noise, draw, 300), noise, draw)]), REPLY)
        for _ in range(VERSIONS)
    ]


def _work(done: int, noise: Sequence[str], draw: random.Random) -> list[Mapping[str, Any]]:
    """The conversation up to the answer after `done` calls."""
    turns = [_asked(TASK, noise, draw)]
    for number, call in enumerate(CALLS[:done]):
        name = f"toolu_{number}"
        use = {"type": "tool_use", "id": name, "name": call.name, "input": call.arguments}
        result = {"type": "tool_result", "tool_use_id": name, "content": _result(noise, draw)}
        turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return turns[-3:]


def _asked(text: str, noise: Sequence[str], draw: random.Random) -> Mapping[str, Any]:
    """A person's words, behind what the client writes before them."""
    texts = [text] if draw.random() < 0.3 else [_some(noise, draw, 120), text]
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def _result(noise: Sequence[str], draw: random.Random) -> str:
    """What a tool says, often with words of the task in it: they are not what tells how far the work is."""
    told = [_some(noise, draw, 90), draw.choice(["", *WORDS]), _some(noise, draw, 90)]
    return " ".join(told)


def _some(noise: Sequence[str], draw: random.Random, most_letters: int) -> str:
    text = draw.choice(noise)
    start = draw.randrange(len(text) - most_letters)
    return text[start : start + draw.randrange(most_letters)] or "."


def _body(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"model": "taught", "max_tokens": 100, "messages": list(messages)}


if __name__ == "__main__":
    train(Path(sys.argv[1]))
