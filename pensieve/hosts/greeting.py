"""What both machines say before the first frame: one line of JSON each.

The front end's machine asks, the other one answers with its facts and with the problem that keeps
the model from running there. Knows neither ssh nor the engine.
"""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

# worker: the whole model. rank: a part of it.
Role = Literal["check", "worker", "rank"]
# What the other machine finds wrong with itself.
Problem = Literal["version", "device", "model", "files", "memory"]

# A shell's profile may print lines before it.
MARKER = b"pensieve-remote-worker "
MAX_LINE_BYTES = 1 << 18
# Of text before the marker.
MAX_NOISE_BYTES = 1 << 16
TIMEOUT_S = 30.0


Amount = Annotated[int, Field(ge=0, lt=2**60)]


class NoAnswerError(Exception):
    """The other machine closed the connection or answered nonsense."""


class LateAnswerError(NoAnswerError):
    """The answer did not come in time; ssh may still run."""


@dataclass(frozen=True, slots=True)
class Question:
    version: str  # of pensieve, which must be the same there
    role: Role
    model: str  # as a person names it
    files: Mapping[str, str] = field(default_factory=dict[str, str])  # see model_identity.py
    ranks: int = 1  # machines that share the model


@dataclass(frozen=True, slots=True)
class Answer:
    version: str
    system: str = ""  # the machine in a line, for people
    chip: str = ""
    memory_bytes: Amount = 0
    device: str = ""
    context_tokens: Amount | None = None  # None: the engine finds out
    backends: tuple[str, ...] = ()  # of MLX, if several machines share the model
    problem: Problem | None = None
    detail: str = ""  # of the problem


_QUESTIONS = TypeAdapter(Question)
_ANSWERS = TypeAdapter(Answer)


def ask(connection: socket.socket, question: Question, timeout_s: float = TIMEOUT_S) -> Answer:
    """Send the question and wait for the answer. Blocks. Raises `NoAnswerError`."""
    until_s = time.monotonic() + timeout_s
    try:
        connection.settimeout(timeout_s)
        connection.sendall(_line(asdict(question)))
        return _ANSWERS.validate_json(_marked_line(connection, until_s), strict=True)
    except TimeoutError as error:
        raise LateAnswerError("no answer in time") from error
    except (OSError, ValueError) as error:
        raise NoAnswerError(str(error)) from error
    finally:
        connection.settimeout(0)


def _marked_line(connection: socket.socket, until_s: float) -> bytes:
    """Return the line after the marker. Reads no byte after it, which would be a frame's."""
    line = bytearray()
    read = 0
    while True:
        if (left_s := until_s - time.monotonic()) <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        byte = connection.recv(1)
        if not byte:
            raise NoAnswerError("the connection was closed")
        read += 1
        if byte != b"\n":
            line += byte
        elif line.startswith(MARKER):
            return bytes(line[len(MARKER) :])
        else:
            line.clear()
        if read > MAX_NOISE_BYTES + MAX_LINE_BYTES:
            raise NoAnswerError("too much text")


def question_of(line: bytes) -> Question:
    """Raises ValueError for anything but a question."""
    return _QUESTIONS.validate_json(line, strict=True)


def answer_line(answer: Answer) -> bytes:
    return MARKER + _line(asdict(answer))


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
