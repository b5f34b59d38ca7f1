"""Figures are sent when they changed, no oftener than a second apart, and once more before the worker goes to sleep."""

from pensieve.engine.generation import EngineStats, Started, Token
from pensieve.engine.protocol import Frame, Step
from pensieve.engine.worker.stats import Reporter


class Desk:
    """A reporter with a clock that stands until it is moved, and a figure that can be changed."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.used = 0
        self.sent: list[Frame] = []
        self.reporter = Reporter(self.sent.append, self.figures, lambda: self.now_s)

    def figures(self, rate: float) -> EngineStats:
        return EngineStats(None, "why", 1, 2, 3, kv_used_bytes=self.used, tokens_per_second=rate)

    def tokens(self, number: int, every_s: float) -> None:
        for _ in range(number):
            self.now_s += every_s
            self.reporter.events([(1, Token(5))])

    def report(self, *, is_last: bool = False) -> list[EngineStats]:
        self.reporter.figures(is_last=is_last)
        reported = [frame for frame in self.sent if isinstance(frame, EngineStats)]
        self.sent.clear()
        return reported


def test_events_are_sent_as_they_come_and_none_is_no_frame() -> None:
    desk = Desk()
    desk.reporter.events([])
    desk.reporter.events([(1, Started(0))])
    assert desk.sent == [Step(((1, Started(0)),))]


def test_figures_wait_for_their_second_unless_they_are_the_last() -> None:
    desk = Desk()
    desk.now_s = 0.9
    assert desk.report() == []
    assert desk.report(is_last=True) == [desk.figures(0.0)]
    desk.used = 7
    desk.now_s = 1.8
    assert desk.report() == []
    desk.now_s = 2.0
    assert desk.report() == [desk.figures(0.0)]


def test_what_has_not_changed_is_not_sent_again() -> None:
    desk = Desk()
    assert len(desk.report(is_last=True)) == 1
    desk.now_s = 100.0
    assert desk.report() == []
    assert desk.report(is_last=True) == []


def test_speed_is_of_the_time_in_which_tokens_came() -> None:
    desk = Desk()
    desk.now_s = 3600.0
    desk.tokens(21, 0.05)
    assert [figures.tokens_per_second for figures in desk.report()] == [20.0]
    desk.now_s += 3600.0
    assert desk.report() == []
    desk.tokens(11, 0.1)
    assert [figures.tokens_per_second for figures in desk.report()] == [10.0]
