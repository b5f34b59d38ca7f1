"""Progress of a download without a terminal, and the formats of sizes and times."""

import pytest

from pensieve.cli.ui.progress import LineProgress, for_terminal, in_bytes, in_time


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fetched(chunks: list[int], total: int, seconds_each: float = 1.0) -> list[str]:
    printed: list[str] = []
    clock = Clock()
    progress = LineProgress(printed.append, clock)
    progress.begin("tiny", total)
    for chunk in chunks:
        progress.advance(chunk)
        clock.now += seconds_each
    progress.end()
    return printed


def test_line_progress_prints_one_line_per_tenth() -> None:
    printed = fetched([1_000_000] * 100, 100_000_000)
    assert len(printed) == 1 + 10
    assert printed[0] == "tiny: 100 MB"
    assert printed[1].startswith("tiny:  10 %  10 MB of 100 MB")
    assert printed[-1] == "tiny: 100 %  100 MB of 100 MB"


def test_progress_line_shows_rate_and_time_left() -> None:
    printed = fetched([10_000_000] * 10, 100_000_000)
    assert printed[5] == "tiny:  50 %  50 MB of 100 MB  10 MB/s  5 s left"


def test_bytes_of_an_earlier_download_do_not_count_as_speed() -> None:
    printed = fetched([80_000_000, 10_000_000, 10_000_000], 100_000_000)
    assert printed[1] == "tiny:  80 %  80 MB of 100 MB"
    assert printed[2] == "tiny:  90 %  90 MB of 100 MB  10 MB/s  1 s left"


def test_large_chunk_prints_one_line() -> None:
    assert fetched([100], 100) == ["tiny: 100 bytes", "tiny: 100 %  100 bytes of 100 bytes"]


def test_download_of_zero_or_unknown_size_is_displayed() -> None:
    assert fetched([], 0) == ["tiny: 0 bytes"]
    assert fetched([5, 5], 0) == ["tiny: 0 bytes"]


def test_without_a_terminal_progress_is_lines() -> None:
    assert isinstance(for_terminal(), LineProgress)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2_300_000, "2 MB"), (2.1e9, "2.1 GB")],
)
def test_sizes_are_formatted_in_decimal_units(count: float, text: str) -> None:
    assert in_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3700, "1 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_times_are_formatted_in_two_units(seconds: float, text: str) -> None:
    assert in_time(seconds) == text
