"""Restores take turns with decoding, by a fake clock and a fake disk."""

from collections.abc import Generator, Sequence

import pytest

from pensieve.engine.scheduling.backend import RestoreSteps
from pensieve.engine.scheduling.prefill_chunks import DECODE_SHARE, ChunkSizer
from pensieve.engine.scheduling.prefix_cache import Hit
from pensieve.engine.scheduling.restore_throttle import ThrottledDiskTier

FILE_S = 0.14
STEP_S = 0.02


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class SlowDisk:
    """A disk tier whose restores read `files` files of `FILE_S` each."""

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


def throttled_restore(disk: SlowDisk) -> tuple[Generator[None, None, Hit | None], ChunkSizer]:
    chunks = ChunkSizer(2048)
    return ThrottledDiskTier(disk, chunks, clock=disk.clock).restore([], []), chunks


def test_decoding_gets_its_share_however_slow_the_disk_is() -> None:
    clock = Clock()
    steps, chunks = throttled_restore(SlowDisk(clock, files=20))
    decoded_s = longest_s = 0.0
    for _ in range(1000):
        began_s = clock.now_s
        if next(steps, "read") == "read":
            break
        longest_s = max(longest_s, clock.now_s - began_s)
        clock.now_s += STEP_S
        chunks.note_decode(STEP_S)
        decoded_s += STEP_S
    else:
        pytest.fail("the restore never ends")
    assert longest_s == pytest.approx(FILE_S)
    assert DECODE_SHARE <= decoded_s / clock.now_s < DECODE_SHARE + 0.1


def test_restore_does_not_pause_while_nothing_decodes() -> None:
    clock = Clock()
    disk = SlowDisk(clock, files=20)
    steps, _ = throttled_restore(disk)
    turns = sum(1 for _ in steps)
    assert disk.is_closed
    assert turns <= 2 * disk.files
    assert clock.now_s == pytest.approx(disk.files * FILE_S)


def test_restore_does_not_wait_for_decoding_that_has_stopped() -> None:
    clock = Clock()
    disk = SlowDisk(clock, files=3)
    steps, chunks = throttled_restore(disk)
    next(steps)
    chunks.note_decode(STEP_S)
    turns = sum(1 for _ in steps)
    assert disk.is_closed
    assert turns <= 2 * disk.files


def test_disk_error_is_raised_by_the_restore() -> None:
    steps, _ = throttled_restore(SlowDisk(Clock(), files=1, error=OSError("no such disk")))
    with pytest.raises(OSError, match="no such disk"):
        list(steps)


def test_closing_a_restore_closes_the_one_of_the_disk_tier() -> None:
    disk = SlowDisk(Clock(), files=3)
    steps, _ = throttled_restore(disk)
    next(steps)
    steps.close()
    assert disk.is_closed


def test_match_is_that_of_the_disk_tier() -> None:
    disk = SlowDisk(Clock(), files=3)
    throttled = ThrottledDiskTier(disk, ChunkSizer(2048))
    assert throttled.match([b"a"], [1, 2]) == disk.match([b"a"], [1, 2])
