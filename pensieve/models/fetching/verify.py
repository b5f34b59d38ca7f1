"""Check files against their origin's listing: by size, and by hash on request."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pensieve.models.folder.snapshot import ModelFile, Snapshot

CHUNK_BYTES = 1 << 20

Advance = Callable[[int], None]


def modified_files(folder: Path, snapshot: Snapshot, advance: Advance) -> tuple[str, ...]:
    """Return the names of files whose content is not the published one; `advance` counts read
    bytes.
    """
    return tuple(
        file.name
        for file in snapshot.files
        if not is_as_published(folder / file.name, file, advance)
    )


def of_other_size(folder: Path, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the names of files that are missing or have another size."""
    return tuple(file.name for file in snapshot.files if _size(folder / file.name) != file.size)


def is_as_published(path: Path, file: ModelFile, advance: Advance = lambda _: None) -> bool:
    """Compare size and the strongest published hash; only the size if none is published."""
    if _size(path) != file.size:
        return False
    expected = file.sha256 or file.git_sha1
    if expected is None:
        return True
    digest = (
        hashlib.sha256() if file.sha256 else hashlib.sha1(_git_head(file), usedforsecurity=False)
    )
    with path.open("rb") as content:
        for chunk in _chunks(content):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest() == expected


def sha256_of(path: Path) -> str:
    """Hash a file for the marker of a model that is built here."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _git_head(file: ModelFile) -> bytes:
    """Return the header that Git hashes before a file's content."""
    return f"blob {file.size}\0".encode()


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: content.read(CHUNK_BYTES), b"")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
