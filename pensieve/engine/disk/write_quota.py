"""Counts the bytes written to disk in the last 24 hours, across restarts.

Used by the block store. Counts by hour of the wall clock. The file is not synced: a power cut loses
a few seconds' count.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from pensieve.atomic_files import TEMPORARY
from pensieve.untrusted_json import read_object

_HOUR_S = 3600
_HOURS = 24
_MAX_COUNT = 2**63


class DailyWriteQuota:
    """Owns the file. For one thread at a time. `clock` returns seconds since the epoch."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._by_hour = _read(file)

    def add(self, nbytes: int) -> None:
        """Count written bytes. If the file cannot be written, only this process counts them."""
        self._drop_old()
        hour = self._hour()
        self._by_hour[hour] = self._by_hour.get(hour, 0) + nbytes
        temporary = self._file.with_name(self._file.name + TEMPORARY)
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(self._by_hour))
            temporary.replace(self._file)

    @property
    def last_day(self) -> int:
        """Bytes written in the last 24 hours."""
        self._drop_old()
        return sum(self._by_hour.values())

    def _hour(self) -> int:
        return int(self._clock() // _HOUR_S)

    def _drop_old(self) -> None:
        """Drop hours older than a day, and future ones: the clock was set back."""
        now = self._hour()
        self._by_hour = {
            hour: nbytes for hour, nbytes in self._by_hour.items() if now - _HOURS < hour <= now
        }


def _read(file: Path) -> dict[int, int]:
    """Return the stored counts; empty if the file is missing or invalid."""
    try:
        counted = read_object(file.read_bytes())
        return {_count(int(hour)): _count(nbytes) for hour, nbytes in counted.items()}
    except (OSError, ValueError):
        return {}


def _count(value: object) -> int:
    """Raises ValueError for anything but a plausible count."""
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise ValueError("not a byte count")
    return value
