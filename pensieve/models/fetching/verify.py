"""Whether files are what their origin published: sizes at once, content by hash where it is asked for."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pensieve.models.folder.snapshot import ModelFile, Snapshot

PIECE_BYTES = 1 << 20

Advance = Callable[[int], None]


def modified_files(folder: Path, snapshot: Snapshot, advance: Advance) -> tuple[str, ...]:
    """The names of the files in `folder` whose content is not the published one. `advance` hears of each byte looked at."""
    return tuple(
        file.name
        for file in snapshot.files
        if not is_as_published(folder / file.name, file, advance)
    )


def of_other_size(folder: Path, snapshot: Snapshot) -> tuple[str, ...]:
    """The names of the files in `folder` that are missing or too short or long."""
    return tuple(file.name for file in snapshot.files if _size(folder / file.name) != file.size)


def is_as_published(path: Path, file: ModelFile, advance: Advance = lambda _: None) -> bool:
    """By size, and by the stronger of the hashes that the origin tells; size alone where it tells none."""
    if _size(path) != file.size:
        return False
    expected = file.sha256 or file.git_sha1
    if expected is None:
        return True
    digest = (
        hashlib.sha256() if file.sha256 else hashlib.sha1(_git_head(file), usedforsecurity=False)
    )
    with path.open("rb") as content:
        for piece in _pieces(content):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest() == expected


def sha256_of(path: Path) -> str:
    """For markers of what is made here."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _git_head(file: ModelFile) -> bytes:
    """What Git puts before a file's content when it names it by hash."""
    return f"blob {file.size}\0".encode()


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: content.read(PIECE_BYTES), b"")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
