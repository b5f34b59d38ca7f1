"""Displays a download: a bar on a terminal, else a line per ten per cent.

And the formats of sizes, times and shares.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pensieve.cli.ui import output

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

STEPS = 10


class LineProgress:
    """Owns the byte count of one download. Its rate excludes bytes of an earlier attempt."""

    def __init__(
        self,
        report: Callable[[str], None] = output.note,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._clock = clock
        self._label = ""
        self._total = self._received = self._initial = 0
        self._reported_steps = 0
        self._started_at = 0.0

    def begin(self, label: str, total_bytes: int) -> None:
        self._label, self._total = label, total_bytes
        self._received = self._initial = self._reported_steps = 0
        self._report(f"{label}: {in_bytes(total_bytes)}")

    def advance(self, count: int) -> None:
        if not self._received:
            self._initial, self._started_at = count, self._clock()
        self._received += count
        steps = self._received * STEPS // self._total if self._total else 0
        if steps > self._reported_steps:
            self._reported_steps = steps
            self._report(self._line())

    def end(self) -> None: ...

    def _line(self) -> str:
        share = 100 * self._reported_steps // STEPS
        line = f"{self._label}: {share:3} %  {in_bytes(self._received)} of {in_bytes(self._total)}"
        seconds = self._clock() - self._started_at
        rate = (self._received - self._initial) / seconds if seconds > 0 else 0.0
        if rate <= 0 or self._received >= self._total:
            return line
        left = in_time((self._total - self._received) / rate)
        return f"{line}  {in_bytes(rate)}/s  {left} left"


class BarProgress:
    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def begin(self, label: str, total_bytes: int) -> None:
        output.note(label)
        from rich import progress
        from rich.console import Console

        columns = (
            progress.BarColumn(bar_width=None),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        self._bar = progress.Progress(*columns, console=Console(stderr=True), expand=True)
        self._bar.add_task("", total=total_bytes)
        self._bar.start()

    def advance(self, count: int) -> None:
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], count)

    def end(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


@contextmanager
def waiting(
    what: str, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[str], None]]:
    """Display what is awaited; on a terminal with stage and time, erased at the end."""
    started_at = clock()
    stages: list[str] = []

    def show(stage: str) -> None:
        if output.can_rewrite_line():
            output.rewrite_line(f"{what}: {stage}, {in_time(clock() - started_at)}")
        elif not stages:
            output.hint(f"{what} ...")
        stages.append(stage)

    try:
        yield show
    finally:
        if stages and output.can_rewrite_line():
            output.rewrite_line("")


def for_terminal() -> LineProgress | BarProgress:
    return BarProgress() if output.can_rewrite_line() else LineProgress()


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, which is given in the singular."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def in_bytes(count: float) -> str:
    """Format in decimal units, as disks and downloads are sold."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def in_time(seconds: float) -> str:
    """Format in the two largest nonzero units."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def in_short_time(seconds: float) -> str:
    """Format in the largest unit, in at most six characters; tenths below ten seconds."""
    for limit, divisor, unit in (
        (9.95, 1, ""),
        (99.5, 1, "s"),
        (5970, 60, "min"),
        (172_800, 3600, "h"),
    ):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}" if unit else f"{max(0.0, seconds):.1f} s"
    return f"{seconds / 86400:.0f} d"


def share_bar(share: float, columns: int) -> str:
    """Draw a share from 0 to 1. Only a whole one fills the bar, and only 0 leaves it empty."""
    filled = round(share * columns)
    if 0 < share < 1:
        filled = max(1, min(filled, columns - 1))
    filled = max(0, min(filled, columns))
    return "━" * filled + "─" * (columns - filled)
