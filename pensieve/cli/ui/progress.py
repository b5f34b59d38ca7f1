"""How a fetch is shown: one bar on a terminal, one plain line per ten per cent elsewhere (`models.fetch.Progress`)."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pensieve.cli.ui import output

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

STEPS = 10


class LineProgress:
    """Owns how much of one fetch is here. The rate leaves out what an earlier fetch had left."""

    def __init__(
        self,
        say: Callable[[str], None] = output.note,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._label = ""
        self._total = self._here = self._before = 0
        self._said_steps = 0
        self._began_at = 0.0

    def begin(self, label: str, total_bytes: int) -> None:
        """Say what is fetched and how large it is."""
        self._label, self._total = label, total_bytes
        self._here = self._before = self._said_steps = 0
        self._say(f"{label}: {in_bytes(total_bytes)}")

    def advance(self, count: int) -> None:
        """Say so where another tenth is reached."""
        if not self._here:
            self._before, self._began_at = count, self._clock()
        self._here += count
        steps = self._here * STEPS // self._total if self._total else 0
        if steps > self._said_steps:
            self._said_steps = steps
            self._say(self._line())

    def end(self) -> None:
        """Nothing: the last tenth was said, or an error follows."""

    def _line(self) -> str:
        share = 100 * self._said_steps // STEPS
        line = f"{self._label}: {share:3} %  {in_bytes(self._here)} of {in_bytes(self._total)}"
        seconds = self._clock() - self._began_at
        rate = (self._here - self._before) / seconds if seconds > 0 else 0.0
        if rate <= 0 or self._here >= self._total:
            return line
        left = in_time((self._total - self._here) / rate)
        return f"{line}  {in_bytes(rate)}/s  {left} left"


class BarProgress:
    """Owns one bar on a terminal: bytes, rate, time left."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def begin(self, label: str, total_bytes: int) -> None:
        """Name what is fetched, and draw the bar below it."""
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
        """Move the bar."""
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], count)

    def end(self) -> None:
        """Leave the bar as it is and go below it."""
        if self._bar:
            self._bar.stop()
            self._bar = None


@contextmanager
def waiting(
    what: str, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[str], None]]:
    """Says what is waited for, once it is: on a terminal how far that is and for how long, and leaves nothing of that."""
    began_at = clock()
    said: list[str] = []

    def show(stage: str) -> None:
        if output.is_live():
            output.rewrite_line(f"{what}: {stage}, {in_time(clock() - began_at)}")
        elif not said:
            output.hint(f"{what} ...")
        said.append(stage)

    try:
        yield show
    finally:
        if said and output.is_live():
            output.rewrite_line("")


def for_terminal() -> LineProgress | BarProgress:
    """The one that standard error can show."""
    return BarProgress() if output.is_live() else LineProgress()


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, which is given in the singular."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def in_bytes(count: float) -> str:
    """`count` in decimal units, as disks and downloads are sold."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def in_time(seconds: float) -> str:
    """`seconds` in the two largest units that say something."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
