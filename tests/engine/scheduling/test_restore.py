"""Restores take turns with decoding, by a fake clock and a fake disk."""

from dataclasses import dataclass

import pytest

from pensieve.engine.scheduling.prefill_chunks import DECODE_SHARE, ChunkSizer
from pensieve.engine.scheduling.prefix_cache import Hit
from pensieve.engine.scheduling.restore import ThrottledRestore
from tests.engine.counting_backend import RememberedState

FILE_S = 0.14
STEP_S = 0.02
HIT = Hit(RememberedState((1, 2)), 2)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class SlowRestore:
    """Reads `unread` files of `FILE_S` each."""

    clock: Clock
    unread: int
    error: Exception | None = None
    hit: Hit | None = None

    @property
    def is_done(self) -> bool:
        return not self.unread

    def step(self) -> None:
        self.clock.now_s += FILE_S
        if self.error:
            raise self.error
        self.unread -= 1
        self.hit = None if self.unread else HIT


def throttled(restore: SlowRestore) -> tuple[ThrottledRestore, ChunkSizer]:
    chunks = ChunkSizer(2048)
    return ThrottledRestore(restore, chunks, clock=restore.clock), chunks


def steps_until_done(restore: ThrottledRestore) -> int:
    for steps in range(1000):
        if restore.is_done:
            return steps
        restore.step()
    pytest.fail("the restore never ends")


def test_decoding_gets_its_share_however_slow_the_disk_is() -> None:
    clock = Clock()
    restore, chunks = throttled(SlowRestore(clock, unread=20))
    decoded_s = longest_s = 0.0
    for _ in range(1000):
        if restore.is_done:
            break
        began_s = clock.now_s
        restore.step()
        longest_s = max(longest_s, clock.now_s - began_s)
        clock.now_s += STEP_S
        chunks.note_decode(STEP_S)
        decoded_s += STEP_S
    assert restore.hit == HIT
    assert longest_s == pytest.approx(FILE_S)
    assert DECODE_SHARE <= decoded_s / clock.now_s < DECODE_SHARE + 0.1


def test_restore_does_not_pause_while_nothing_decodes() -> None:
    clock = Clock()
    restore, _ = throttled(SlowRestore(clock, unread=20))
    assert steps_until_done(restore) <= 2 * 20
    assert restore.hit == HIT
    assert clock.now_s == pytest.approx(20 * FILE_S)


def test_restore_does_not_wait_for_decoding_that_has_stopped() -> None:
    restore, chunks = throttled(SlowRestore(Clock(), unread=3))
    restore.step()
    chunks.note_decode(STEP_S)
    assert steps_until_done(restore) <= 2 * 2
    assert restore.hit == HIT


def test_each_read_is_announced_and_a_pause_is_not() -> None:
    announced: list[str] = []
    clock, chunks = Clock(), ChunkSizer(2048)
    restore = ThrottledRestore(
        SlowRestore(clock, unread=2), chunks, lambda work, _: announced.append(work), clock
    )
    restore.step()
    restore.step()
    assert announced == ["reading a stored prefix back"]
    assert steps_until_done(restore) == 1
    assert len(announced) == 2


def test_disk_error_is_raised_by_the_step_and_counts_as_time_that_decoding_is_owed() -> None:
    restore, chunks = throttled(SlowRestore(Clock(), unread=1, error=OSError("no such disk")))
    with pytest.raises(OSError, match="no such disk"):
        restore.step()
    assert chunks.decode_debt_s > 0
