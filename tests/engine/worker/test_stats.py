"""Changed stats are sent at most once a second, and once more before the worker idles."""

from pensieve.engine.generation import EngineStats, Started, Token
from pensieve.engine.protocol import Frame, Step
from pensieve.engine.worker.worker import Reporter


class Bench:
    """A reporter with a manual clock and a value that can be changed."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.used = 0
        self.sent: list[Frame] = []
        self.reporter = Reporter(self.sent.append, self.stats, lambda: self.now_s)

    def stats(self, rate: float) -> EngineStats:
        return EngineStats(None, "why", 1, 2, 3, kv_used_bytes=self.used, tokens_per_second=rate)

    def tokens(self, number: int, every_s: float) -> None:
        for _ in range(number):
            self.now_s += every_s
            self.reporter.send_events([(1, Token(5))])

    def report(self, *, is_last: bool = False) -> list[EngineStats]:
        self.reporter.send_stats(is_last=is_last)
        reported = [frame for frame in self.sent if isinstance(frame, EngineStats)]
        self.sent.clear()
        return reported


def test_events_are_sent_at_once_and_an_empty_list_sends_no_frame() -> None:
    bench = Bench()
    bench.reporter.send_events([])
    bench.reporter.send_events([(1, Started(0))])
    assert bench.sent == [Step(((1, Started(0)),))]


def test_stats_are_sent_once_a_second_unless_they_are_the_last() -> None:
    bench = Bench()
    bench.now_s = 0.9
    assert bench.report() == []
    assert bench.report(is_last=True) == [bench.stats(0.0)]
    bench.used = 7
    bench.now_s = 1.8
    assert bench.report() == []
    bench.now_s = 2.0
    assert bench.report() == [bench.stats(0.0)]


def test_unchanged_stats_are_not_sent_again() -> None:
    bench = Bench()
    assert len(bench.report(is_last=True)) == 1
    bench.now_s = 100.0
    assert bench.report() == []
    assert bench.report(is_last=True) == []


def test_throughput_ignores_the_time_without_tokens() -> None:
    bench = Bench()
    bench.now_s = 3600.0
    bench.tokens(21, 0.05)
    assert [stats.tokens_per_second for stats in bench.report()] == [20.0]
    bench.now_s += 3600.0
    assert bench.report() == []
    bench.tokens(11, 0.1)
    assert [stats.tokens_per_second for stats in bench.report()] == [10.0]
