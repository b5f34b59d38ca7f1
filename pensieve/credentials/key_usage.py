"""When keys were used last and what they used today: written by the server, read by commands.

What is damaged counts as not used: nothing but today's count is lost.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from pensieve.atomic_files import write_atomically
from pensieve.private_files import make_folder, read_private
from pensieve.untrusted_json import read_object

MAX_BYTES = 2**20
DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class KeyUsage:
    last_used_at: float = 0.0  # Unix seconds
    day: int = 0  # of UTC, since 1970
    tokens: int = 0  # used on that day

    def tokens_on(self, day: int) -> int:
        return self.tokens if self.day == day else 0


def day_of(unix_s: float) -> int:
    return int(unix_s // DAY_S)


def read_usage(file: Path) -> dict[str, KeyUsage]:
    """Return the usage of each key by its name."""
    with suppress(OSError, ValueError):
        entries = read_object(read_private(file, MAX_BYTES))
        return {name: _usage(entry) for name, entry in entries.items()}
    return {}


def write_usage(file: Path, usage: Mapping[str, KeyUsage]) -> None:
    """Raises OSError."""
    make_folder(file.parent)
    text = json.dumps({name: asdict(each) for name, each in usage.items()}) + "\n"
    write_atomically(file, text.encode(), is_durable=False)


def _usage(entry: object) -> KeyUsage:
    values = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    numbers = {each.name: values.get(each.name) for each in fields(KeyUsage)}
    if not all(isinstance(number, int | float) for number in numbers.values()):
        return KeyUsage()
    return KeyUsage(**cast("dict[str, Any]", numbers))
