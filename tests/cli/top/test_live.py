"""Asking again and again, and redrawing until a key ends it."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from pensieve.cli.top.drawing import Outage, TopState
from pensieve.cli.top.live import LiveScreen, Poller, next_state, watch
from pensieve.errors import NoServerError, PensieveError
from tests.cli.top.recorded import ANSWER, PROMPT, activity, finished, history

URL = "http://127.0.0.1:7777"
ENTERS, LEAVES = "\x1b[?1049h", "\x1b[?1049l"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ScriptedServer:
    """Gives one answer a question: an activity, or an error. Records what was asked for."""

    def __init__(self, *answers: dict[str, Any] | PensieveError) -> None:
        self._answers: Iterator[dict[str, Any] | PensieveError] = iter(answers)
        self.asked_for_history: list[bool] = []

    def __call__(self, with_history: bool) -> Sequence[dict[str, Any]]:
        self.asked_for_history.append(with_history)
        answer = next(self._answers)
        if isinstance(answer, PensieveError):
            raise answer
        return [answer, history(recent=[finished(1)])] if with_history else [answer]


def test_answer_replaces_the_figures_and_keeps_a_history_that_was_not_asked_for() -> None:
    read = ScriptedServer(activity(PROMPT), activity(ANSWER))
    first = next_state(TopState(), read, 0.0, with_history=True)
    second = next_state(first, read, 1.0, with_history=False)
    assert [each.phase for each in second.activity.requests] == ["answer"]
    assert second.history == first.history
    assert len(second.history.recent) == 1


def test_outage_keeps_the_figures_and_its_beginning() -> None:
    read = ScriptedServer(activity(PROMPT), NoServerError(URL), NoServerError(URL))
    before = next_state(TopState(), read, 0.0, with_history=True)
    first = next_state(before, read, 5.0, with_history=False)
    second = next_state(first, read, 9.0, with_history=False)
    assert second.outage == Outage(
        f"No pensieve server answers at {URL}.", "Start it:\n  pensieve start", 5.0
    )
    assert (second.activity, second.history) == (before.activity, before.history)


def test_history_is_asked_for_every_five_seconds_and_after_an_outage() -> None:
    clock = Clock()
    read = ScriptedServer(*[activity()] * 3, NoServerError(URL), *[activity()] * 2)
    poller = Poller(read, TopState(), 1.0, clock)
    for now in (102.0, 105.0, 106.0, 107.0, 108.0, 109.0):
        clock.now = now
        poller.poll()
    assert read.asked_for_history == [False, True, False, False, True, False]
    assert poller.state.outage is None


def test_started_poller_asks_until_it_is_stopped() -> None:
    read = ScriptedServer(*[activity(PROMPT)] * 100)
    poller = Poller(read, TopState(), 0.001)
    poller.start()
    watch(poller, screen_on(io.StringIO()), until(lambda: bool(read.asked_for_history)), size)
    poller.stop()


def test_unexpected_error_ends_the_watch_and_restores_the_terminal() -> None:
    file = io.StringIO()
    poller = Poller(ScriptedServer(), state_of(), 0.001)  # has no answer
    poller.start()
    with pytest.raises(StopIteration), screen_on(file) as screen:
        watch(poller, screen, lambda _timeout_s: "", size)
    assert file.getvalue().count(LEAVES) == 1


def size() -> tuple[int, int]:
    return 80, 24


def screen_on(file: io.StringIO) -> LiveScreen:
    return LiveScreen(file.write, size, "utf-8")


def until(is_done: Callable[[], bool]) -> Callable[[float], str]:
    """Press q once something has happened."""
    return lambda _timeout_s: "q" if is_done() else ""


def pressing(*keys: str) -> Callable[[float], str]:
    pressed = iter(keys)
    return lambda _timeout_s: next(pressed)


def state_of(*requests: dict[str, Any]) -> TopState:
    return next_state(TopState(), ScriptedServer(activity(*requests)), 0.0, with_history=True)


def drawings_of(text: str) -> list[str]:
    return re.findall(r"server {7}\w+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


def test_q_leaves_the_second_screen_as_it_was() -> None:
    file = io.StringIO()
    with screen_on(file) as screen:
        watch(Poller(ScriptedServer(), state_of(PROMPT), 1.0), screen, pressing("x", "q"), size)
    text = file.getvalue()
    assert text.count(ENTERS) == text.count(LEAVES) == 1
    assert text.index("claude-code") < text.index(LEAVES)
    assert text.index("\x1b[?25l") < text.index("\x1b[?25h")  # the cursor is back


def test_unchanged_state_is_drawn_once() -> None:
    file = io.StringIO()
    keys = pressing("", "", "", "q")
    with screen_on(file) as screen:
        watch(Poller(ScriptedServer(), state_of(), 1.0), screen, keys, size)
    assert drawings_of(file.getvalue()) == ["server       ready"]


def test_new_size_is_followed_at_once() -> None:
    sizes = [(80, 24)]
    file = io.StringIO()
    screen = LiveScreen(file.write, lambda: sizes[-1], "utf-8")

    def resize(_timeout_s: float) -> str:
        sizes.append((60, 10))
        return "q" if len(sizes) > 2 else ""

    with screen:
        watch(Poller(ScriptedServer(), state_of(PROMPT), 1.0), screen, resize, lambda: sizes[-1])
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    rows = plain[plain.rindex("server") :].split("\n")
    assert len(rows) == 10
    assert max(map(len, rows)) <= 60


def test_length_of_an_outage_is_redrawn_each_second() -> None:
    file, clock = io.StringIO(), Clock()
    poller = Poller(ScriptedServer(NoServerError(URL)), TopState(), 1.0, clock)
    poller.poll()

    def advance(_timeout_s: float) -> str:
        clock.now += 0.5
        return "q" if clock.now > 102.4 else ""

    with screen_on(file) as screen:
        watch(poller, screen, advance, size, clock)
    assert re.findall(r"no answer for (\d) s", file.getvalue()) == ["0", "1", "2"]
