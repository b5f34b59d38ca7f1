"""How a fetch is shown where there is no terminal, and sizes and times in words."""

import pytest

from pensieve.cli.ui.progress import LineProgress, for_terminal, in_bytes, in_time


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fetched(chunks: list[int], total: int, seconds_each: float = 1.0) -> list[str]:
    said: list[str] = []
    clock = Clock()
    progress = LineProgress(said.append, clock)
    progress.begin("tiny", total)
    for chunk in chunks:
        progress.advance(chunk)
        clock.now += seconds_each
    progress.end()
    return said


def test_there_is_one_line_for_each_tenth() -> None:
    said = fetched([1_000_000] * 100, 100_000_000)
    assert len(said) == 1 + 10
    assert said[0] == "tiny: 100 MB"
    assert said[1].startswith("tiny:  10 %  10 MB of 100 MB")
    assert said[-1] == "tiny: 100 %  100 MB of 100 MB"


def test_a_line_tells_rate_and_time_left() -> None:
    said = fetched([10_000_000] * 10, 100_000_000)
    assert said[5] == "tiny:  50 %  50 MB of 100 MB  10 MB/s  5 s left"


def test_what_an_earlier_fetch_left_does_not_count_as_speed() -> None:
    said = fetched([80_000_000, 10_000_000, 10_000_000], 100_000_000)
    assert said[1] == "tiny:  80 %  80 MB of 100 MB"
    assert said[2] == "tiny:  90 %  90 MB of 100 MB  10 MB/s  1 s left"


def test_a_large_chunk_is_one_line() -> None:
    assert fetched([100], 100) == ["tiny: 100 bytes", "tiny: 100 %  100 bytes of 100 bytes"]


def test_a_fetch_of_nothing_or_of_unknown_size_breaks_nothing() -> None:
    assert fetched([], 0) == ["tiny: 0 bytes"]
    assert fetched([5, 5], 0) == ["tiny: 0 bytes"]


def test_where_nobody_looks_there_are_lines() -> None:
    assert isinstance(for_terminal(), LineProgress)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2_300_000, "2 MB"), (2.1e9, "2.1 GB")],
)
def test_sizes_in_words(count: float, words: str) -> None:
    assert in_bytes(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3700, "1 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_time(seconds) == words
