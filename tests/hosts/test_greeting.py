"""The line each machine sends before the first frame."""

import json
import socket
import threading
from dataclasses import asdict

import pytest

from pensieve.hosts.greeting import (
    MARKER,
    MAX_LINE_BYTES,
    MAX_NOISE_BYTES,
    Answer,
    NoAnswerError,
    Question,
    answer_line,
    ask,
    question_of,
)

QUESTION = Question("1.0", "worker", "phi-3-mini", {"config.json": "ab"})
ANSWER = Answer("1.0", "macOS 26 on arm64", "Apple M4", 1 << 34, "gpu", 61_000)


def asked(sent: bytes, timeout_s: float = 5.0, *, is_closed: bool = True) -> tuple[Answer, bytes]:
    """Ask a machine that sends these bytes; return the answer and what is left to read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def answer() -> None:
            theirs.sendall(sent)
            if is_closed:
                theirs.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            found = ask(ours, QUESTION, timeout_s)
        finally:
            theirs.recv(1 << 16)
            ours.setblocking(True)
            rest = b"".join(iter(lambda: ours.recv(1 << 16), b"")) if is_closed else b""
            thread.join()
        return found, rest


def test_question_arrives_as_it_was() -> None:
    assert question_of(json.dumps(asdict(QUESTION)).encode()) == QUESTION


def test_answer_is_found_after_a_banner_and_frames_after_it_are_kept() -> None:
    sent = b"Welcome!\n\xff\xfe noise\n" + answer_line(ANSWER) + b"\x00\x00\x00\x02{}"
    assert asked(sent) == (ANSWER, b"\x00\x00\x00\x02{}")


def test_answer_of_a_newer_version_is_understood() -> None:
    line = MARKER + b'{"version": "9.9", "problem": "version", "detail": "9.9", "news": [1]}\n'
    assert asked(line)[0] == Answer("9.9", problem="version", detail="9.9")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"Welcome!\n",
        MARKER,
        MARKER + b"\n",
        MARKER + b"{}\n",
        MARKER + b"[1]\n",
        MARKER + b'{"version": 3}\n',
        MARKER + b'{"version": "1.0", "memory_bytes": "many"}\n',
        MARKER + b'{"version": "1.0", "problem": "hungry"}\n',
        MARKER + b'{"version": "1.0", "memory_bytes": 1' + b"0" * 400 + b"}\n",
        MARKER + b'{"version": "1.0", "context_tokens": -1}\n',
        b"x" * (MAX_NOISE_BYTES + MAX_LINE_BYTES + 1),
    ],
)
def test_anything_else_is_no_answer(sent: bytes) -> None:
    with pytest.raises(NoAnswerError):
        asked(sent)


def test_silence_is_no_answer() -> None:
    with pytest.raises(NoAnswerError):
        asked(b"Welcome!\n", 0.05, is_closed=False)


def test_text_that_never_ends_is_no_answer() -> None:
    ours, theirs = socket.socketpair()
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(0.002):
            theirs.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    with ours, theirs:
        with pytest.raises(NoAnswerError, match="in time"):
            ask(ours, QUESTION, 0.1)
        is_over.set()
        thread.join()


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b'{"version": "1", "role": "root", "model": "m", "files": {}}']
)
def test_anything_else_is_no_question(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        question_of(line)
