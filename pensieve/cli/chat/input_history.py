"""The history of typed lines: a private file with one JSON string a line.

Concurrent chats append to it independently. A file that cannot be read or written disables the
history, not the conversation.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

from pensieve.atomic_files import write_atomically
from pensieve.daemon.private_dirs import make_private, open_private
from pensieve.errors import NotWritableError
from pensieve.untrusted_json import read_json

MAX_ENTRIES = 1000


class FileHistory(History):
    """Owns the file `path`, readable by its user only."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> list[str]:
        """Return the entries, newest first. Trims a long file to the newest."""
        entries = list(self._entries())
        if len(entries) > 2 * MAX_ENTRIES:
            entries = entries[-MAX_ENTRIES:]
            with suppress(OSError):
                write_atomically(self._path, b"".join(map(_line, entries)))
        return entries[::-1]

    def append_string(self, string: str) -> None:
        """Store a line, unless it begins with a space or repeats the last one."""
        if not string.strip() or string[0] == " " or string in self.get_strings()[-1:]:
            return
        super().append_string(string)

    def store_string(self, string: str) -> None:
        with suppress(OSError, NotWritableError):
            make_private(self._path.parent)
            descriptor = open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_line(string))

    def _entries(self) -> Iterator[str]:
        with suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                with suppress(ValueError):
                    entry = read_json(line)
                    if isinstance(entry, str):
                        yield entry


def _line(entry: str) -> bytes:
    return json.dumps(entry).encode() + b"\n"
