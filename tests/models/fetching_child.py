"""Fetch a model as `pensieve start` does, and print each count of bytes on the disk."""

import sys
from pathlib import Path

from pensieve import paths
from pensieve.models.catalog.find import find
from pensieve.models.fetching.fetch import fetch


class Printed:
    def begin(self, label: str, total_bytes: int) -> None: ...

    def advance(self, count: int) -> None:
        sys.stdout.write(f"{count}\n")
        sys.stdout.flush()

    def end(self) -> None: ...


if __name__ == "__main__":
    fetch(find(sys.argv[1]), paths.under_home(Path(sys.argv[2])), Printed())
