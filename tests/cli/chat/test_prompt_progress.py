"""How far the prompt is, in a chat that waits for its first token."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve.cli.chat.prompt_progress import PromptProgress
from pensieve.cli.chat.view import BufferedView, NoView, PlainView, WaitsUntil
from pensieve.cli.client.activity import activity_of
from pensieve.cli.client.activity_reader import ACTIVITY
from pensieve.cli.lifecycle.request_progress import request_lines, waiting_text
from pensieve.errors import NoServerError
from tests.cli.fake_server import Event, message, serving
from tests.cli.program import at_terminal, pensieve
from tests.cli.top.recorded import ANSWER, PROMPT, QUEUED, activity

# pexpect forks. The fake server's thread holds no lock that the child needs before its exec.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

LINE = "processing the prompt ━━━━━─────── 38 % of 4,012 tokens, about 19 s left …"
OWN = {"id": "req_own"}


class RecordingView(NoView):
    """Records what is awaited, and lets the test wait for it."""

    waits_until: WaitsUntil = "first text"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.has_text = threading.Event()

    def show_waiting(self, waited_s: float, text: str = "") -> None:
        self.texts.append(text)
        if text:
            self.has_text.set()


def test_text_of_the_own_request_is_drawn_until_stopped() -> None:
    view = RecordingView()
    progress = PromptProgress(view, lambda request_id: f"text of {request_id}")
    progress.start("req_own")
    assert view.has_text.wait(30)
    progress.stop()
    drawn = list(view.texts)
    assert drawn[:2] == ["", "text of req_own"]
    assert progress.is_stopped


def test_server_without_activity_leaves_the_time() -> None:
    view = RecordingView()
    asked = threading.Event()

    def refuse(_request_id: str) -> str:
        asked.set()
        raise NoServerError("http://127.0.0.1:7777")

    progress = PromptProgress(view, refuse)
    progress.start("req_own")
    assert asked.wait(30)
    progress.stop()
    assert set(view.texts) == {""}


@pytest.mark.parametrize("view", [NoView(), PlainView(), BufferedView(PlainView())])
def test_views_without_a_terminal_ask_nothing(view: NoView | PlainView | BufferedView) -> None:
    threads = threading.active_count()
    PromptProgress(view, lambda _: pytest.fail("asked")).start("req_own")
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (PROMPT | OWN, LINE),
        (PROMPT | OWN | {"remaining_s": None}, LINE.replace(", about 19 s left", "")),
        (PROMPT | OWN | {"processed_tokens": None}, "processing the prompt …"),
        (QUEUED | OWN, "waiting for 2 other requests, 3 s …"),
        (ANSWER | OWN, ""),
        (PROMPT, ""),
    ],
)
def test_waiting_text_says_how_far_the_request_is(request_: Event, text: str) -> None:
    others = (ANSWER | {"id": "req_2"}, PROMPT | {"id": "req_3"}, QUEUED | {"id": "req_4"})
    assert waiting_text(activity_of(activity(*others, request_)), "req_own") == text


def test_request_lines_are_aligned_and_limited() -> None:
    lines = request_lines(activity_of(activity(ANSWER, PROMPT, *[QUEUED] * 8)))
    assert lines[:3] == [
        "codex                 answer 128 tokens, 42.1 per second",
        "claude-code 3f2a9c1e  prompt 38 % of 4,012 tokens, about 19 s left",
        "pensieve-chat         waiting for 2 other requests, 3 s",
    ]
    assert lines[8:] == ["and 2 more: pensieve top"]


class SlowPrompt:
    """An answer whose text waits until the test has seen the progress."""

    def __init__(self) -> None:
        self.is_seen = threading.Event()

    def answer(self) -> Iterator[Event]:
        start, *rest = message("Paris.")
        yield start
        yield {"type": "ping"}
        assert self.is_seen.wait(30)
        yield from rest


@pytest.mark.parametrize("arguments", [[], ["--no-stream"]])
def test_progress_is_one_line_that_vanishes_when_the_answer_begins(
    arguments: list[str], tmp_path: Path
) -> None:
    prompt = SlowPrompt()
    with serving(prompt.answer()) as server:
        server.bodies = {ACTIVITY: lambda: activity(PROMPT | OWN)}
        child = at_terminal(
            "chat", "Which?", *arguments, home=tmp_path, PENSIEVE_PORT=str(server.server_port)
        )
        child.expect_exact(LINE)
        prompt.is_seen.set()
        rest = child.read()
        child.close()
    assert child.exitstatus == 0
    erased, _, answer = rest.partition("\x1b[2K")
    assert "Paris." not in erased
    assert "Paris." in answer
    assert "processing" not in answer


def test_piped_answer_has_no_progress(tmp_path: Path) -> None:
    with serving(message("Paris.")) as server:
        done = pensieve("chat", "Which?", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
        assert ACTIVITY not in {headers["path"] for headers in server.seen}
    assert (done.stdout, done.stderr) == (b"Paris.\n", b"")
