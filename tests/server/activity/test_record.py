"""The record of a request: phases, times and token counts from the engine's events."""

from dataclasses import dataclass, field

import pytest

from pensieve.engine.generation import (
    Admitted,
    DraftCounts,
    Drafted,
    EngineEvent,
    Finished,
    Generation,
    Prefilled,
    Requeued,
    SourceCounts,
    Started,
    Token,
)
from pensieve.server.activity.record import RequestRecord
from pensieve.server.activity.registry import MAX_RECENT, Activity

PROMPT = Generation(tuple(range(100)), max_tokens=50, priority="side")


@dataclass
class Time:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Heard:
    gaps: list[float | None] = field(default_factory=list)
    ended: list[RequestRecord] = field(default_factory=list)

    def note_token(self, gap_s: float | None) -> None:
        self.gaps.append(gap_s)

    def note_ended(self, record: RequestRecord) -> None:
        self.ended.append(record)


@dataclass
class Bench:
    """One server's activity with a clock of its own."""

    time: Time = field(default_factory=Time)
    unix: Time = field(default_factory=lambda: Time(1_800_000_000.0))
    heard: Heard = field(default_factory=Heard)

    def __post_init__(self) -> None:
        self.activity = Activity(self.time, self.unix)
        self.activity.listen(self.heard)

    def opened(self, request_id: str = "req_1", *, generates: bool = True) -> RequestRecord:
        record = self.activity.open(request_id, "/v1/messages", "anthropic", generates=generates)
        record.status = 200
        return record

    def play(self, record: RequestRecord, *events: tuple[float, EngineEvent]) -> None:
        """Submit a generation; each event comes its seconds after the one before."""
        observe = record.begin(PROMPT, PROMPT.max_tokens)
        for seconds, event in events:
            self.after(seconds)
            observe(event)

    def after(self, seconds: float) -> None:
        self.time.now += seconds
        self.unix.now += seconds


TOKEN = Token(1)


def test_times_of_all_phases_make_the_total() -> None:
    bench = Bench()
    record = bench.opened()
    bench.after(0.5)
    events = [(1, Started(20)), (1, Admitted()), (3, Prefilled(100)), (1, TOKEN), (0.5, TOKEN)]
    bench.play(record, *events, (0.5, Finished("stop_token", 3)))
    bench.activity.close(record)
    assert record.phase_s == {"reading": 0.5, "queued": 2, "prompt": 4, "answer": 1}
    assert record.total_s == sum(record.phase_s.values())
    assert record.first_token_s == 6.5
    assert record.tokens_per_second == 2
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (100, 20, 3)
    assert (record.priority, record.ended_at) == ("side", bench.unix.now)


def test_phase_follows_the_engine_also_back_to_the_queue() -> None:
    record = Bench().opened()
    phases = [record.phase]
    observe = record.begin(PROMPT, 50)
    for event in (Started(0), Admitted(), Requeued(), Admitted(), TOKEN, Requeued(), Admitted()):
        phases.append(record.phase)
        observe(event)
    observe(TOKEN)
    assert phases == [
        "reading",
        "queued",
        "queued",
        "prompt",
        "queued",
        "prompt",
        "answer",
        "queued",
    ]
    assert record.phase == "answer"


def test_remaining_time_of_a_prompt_follows_its_latest_speed() -> None:
    bench = Bench()
    record = bench.opened()
    bench.play(record, (0, Started(20)), (60, Admitted()))
    assert (record.processed_tokens, record.remaining_s) == (20, None)
    observe = record.generations[0].observe
    bench.after(2)
    observe(Prefilled(40))
    assert (record.prompt_tokens_per_second, record.remaining_s) == (10, 6)
    bench.after(1)
    assert record.remaining_s == 5
    bench.after(100)
    assert record.remaining_s == 0
    observe(TOKEN)
    assert record.remaining_s is None


def test_reading_a_prefix_from_disk_is_no_speed_of_the_prompt() -> None:
    bench = Bench()
    record = bench.opened()
    bench.play(record, (0, Started(0)), (0, Admitted()), (30, Started(50)), (1, Prefilled(75)))
    assert (record.prompt_tokens_per_second, record.remaining_s) == (25, 1)


def test_prompt_of_several_answers_counts_once() -> None:
    bench = Bench()
    record = bench.opened()
    bench.play(record, (0, Started(10)), (0, Admitted()), (1, TOKEN), (1, Finished("length", 2)))
    bench.play(record, (0, Started(99)), (0, Admitted()))
    assert record.phase == "answer"
    bench.play(record, (1, TOKEN), (1, TOKEN))
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (100, 10, 4)
    assert record.first_token_s == 1


def test_prompt_without_an_answer_has_no_tokens() -> None:
    bench = Bench()
    record = bench.opened()
    observe = record.begin(PROMPT, 0)
    for event in (Started(0), Admitted(), TOKEN, Finished("length", 1)):
        observe(event)
    assert (record.output_tokens, record.first_token_s, record.max_tokens) == (0, None, 0)
    assert bench.heard.gaps == []


def test_gap_is_heard_with_each_token_and_none_with_the_first() -> None:
    bench = Bench()
    bench.play(bench.opened(), (1, Started(0)), (1, TOKEN), (0.25, TOKEN), (0, TOKEN), (2, TOKEN))
    assert bench.heard.gaps == [None, 0.25, 0, 2]


def test_drafts_are_those_of_all_answers() -> None:
    bench = Bench()
    record = bench.opened()
    counts = DraftCounts(lookup=SourceCounts(4, 3))
    for _ in range(2):
        bench.play(record, (0, Started(0)), (0, Drafted(counts)), (0, TOKEN))
    assert record.drafts.total == SourceCounts(8, 6)


def test_ended_request_is_heard_and_no_longer_open() -> None:
    bench = Bench()
    first, second = bench.opened("req_1"), bench.opened("req_2")
    bench.opened("req_3", generates=False)
    assert bench.activity.requests == [first, second]
    bench.activity.close(first)
    assert (bench.activity.requests, bench.heard.ended) == ([second], [first])


def test_request_without_an_outcome_is_forgotten() -> None:
    bench = Bench()
    record = bench.opened()
    record.status = None
    bench.activity.close(record)
    assert (bench.heard.ended, bench.activity.recent, bench.activity.requests) == ([], [], [])


def test_recent_requests_are_bounded_and_newest_first() -> None:
    bench = Bench()
    for at in range(MAX_RECENT + 20):
        bench.activity.close(bench.opened(f"req_{at}", generates=at != MAX_RECENT + 10))
    ids = [record.id for record in bench.activity.recent]
    assert len(ids) == MAX_RECENT
    assert ids[:2] == [f"req_{MAX_RECENT + 19}", f"req_{MAX_RECENT + 18}"]
    assert f"req_{MAX_RECENT + 10}" not in ids


def test_speed_of_an_interval_counts_the_time_of_decoding_once() -> None:
    bench = Bench()
    slow, fast = bench.opened("req_1"), bench.opened("req_2")
    watch = [each.begin(PROMPT, 50) for each in (slow, fast)]
    for _ in range(3):
        bench.after(0.5)
        for observe in watch:
            observe(TOKEN)
    (interval,) = bench.activity.last_hour
    assert (interval.tokens, interval.busy_s, interval.tokens_per_second) == (4, 1, 4)


def test_first_tokens_of_an_interval_have_a_median() -> None:
    bench = Bench()
    for seconds in (1, 2, 5):
        record = bench.opened(f"req_{seconds}")
        bench.play(record, (0, Started(0)), (seconds, TOKEN))
        bench.activity.close(record)
    assert [each.median_first_token_s for each in bench.activity.last_hour] == [2]


def test_intervals_are_those_of_the_last_hour() -> None:
    bench = Bench()
    record = bench.opened()
    bench.play(record, (0, Started(0)), *[(10.0, TOKEN)] * 500)
    assert len(bench.activity.last_hour) == 360
    bench.after(1800)
    assert len(bench.activity.last_hour) == pytest.approx(180, abs=1)
    bench.after(-7000)
    assert bench.activity.last_hour == []  # the clock was set back
    bench.after(1_007_000)
    assert bench.activity.last_hour == []
