"""Reading back beside decoding, by a clock that is told: who decodes has its share of the time. No disk."""

from collections.abc import Generator, Sequence

import pytest

from pensieve.engine.scheduling.backend import RestoreSteps
from pensieve.engine.scheduling.prefill_chunks import DECODE_SHARE, ChunkSizer
from pensieve.engine.scheduling.prefix_cache import Hit
from pensieve.engine.scheduling.restore_throttle import ThrottledDiskTier

FILE_S = 0.14
STEP_S = 0.02


class Clock:
    """Tells what it was told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class SlowDisk:
    """An archive of so many files, each of which takes `FILE_S`."""

    def __init__(self, clock: Clock, files: int, error: Exception | None = None) -> None:
        self.clock, self.files, self.error = clock, files, error
        self.is_closed = False

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        return self.files + len(hashes) + len(tokens)

    def restore(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> RestoreSteps:
        try:
            for _ in range(self.files):
                self.clock.now_s += FILE_S
                yield
            if self.error:
                raise self.error
            return None
        finally:
            self.is_closed = True


def paced(disk: SlowDisk) -> tuple[Generator[None, None, Hit | None], ChunkSizer]:
    chunks = ChunkSizer(2048)
    return ThrottledDiskTier(disk, chunks, clock=disk.clock).restore([], []), chunks


def test_who_decodes_has_its_share_however_slow_the_disk_is() -> None:
    clock = Clock()
    reading, chunks = paced(SlowDisk(clock, files=20))
    decoded_s = longest_s = 0.0
    for _ in range(1000):
        began_s = clock.now_s
        if next(reading, "read") == "read":
            break
        longest_s = max(longest_s, clock.now_s - began_s)
        clock.now_s += STEP_S
        chunks.note_decode(STEP_S)
        decoded_s += STEP_S
    else:
        pytest.fail("it is never read")
    assert longest_s == pytest.approx(FILE_S)
    assert DECODE_SHARE <= decoded_s / clock.now_s < DECODE_SHARE + 0.1


def test_where_nobody_decodes_nothing_waits() -> None:
    clock = Clock()
    disk = SlowDisk(clock, files=20)
    reading, _ = paced(disk)
    turns = sum(1 for _ in reading)
    assert disk.is_closed
    assert turns <= 2 * disk.files
    assert clock.now_s == pytest.approx(disk.files * FILE_S)


def test_who_stops_decoding_is_not_waited_for() -> None:
    clock = Clock()
    disk = SlowDisk(clock, files=3)
    reading, chunks = paced(disk)
    next(reading)
    chunks.note_decode(STEP_S)
    turns = sum(1 for _ in reading)
    assert disk.is_closed
    assert turns <= 2 * disk.files


def test_what_is_wrong_with_the_disk_comes_out() -> None:
    reading, _ = paced(SlowDisk(Clock(), files=1, error=OSError("no such disk")))
    with pytest.raises(OSError, match="no such disk"):
        list(reading)


def test_who_leaves_in_the_middle_closes_what_was_read() -> None:
    disk = SlowDisk(Clock(), files=3)
    reading, _ = paced(disk)
    next(reading)
    reading.close()
    assert disk.is_closed


def test_how_much_there_is_is_what_the_archive_says() -> None:
    disk = SlowDisk(Clock(), files=3)
    archive = ThrottledDiskTier(disk, ChunkSizer(2048))
    assert archive.match([b"a"], [1, 2]) == disk.match([b"a"], [1, 2])
