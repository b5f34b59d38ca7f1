"""The location of a model's files, and how a folder of them is published.

A folder is filled next to its destination and renamed to it after every file is verified and its
marker is written (`pensieve.json`: the files' origin, sizes and hashes). So an existing folder is
complete. Knows neither the Hub nor the files' meaning.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from pensieve.atomic_files import exclude_from_backups, sync_path, write_atomically
from pensieve.errors import NotWritableError
from pensieve.models.catalog.sources import EmbeddedModel, HubModel, LocalModel, ModelSource
from pensieve.models.folder.model_files import read_file
from pensieve.private_files import claim, make_folder, open_private, private_umask
from pensieve.untrusted_json import read_json

MARKER = "pensieve.json"
_ELSEWHERE = "Make it yours, or keep pensieve's files elsewhere: export PENSIEVE_HOME=~/pensieve"
# Suffix of the folder, next to its destination, into which a model is fetched.
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A complete mlx-lm model folder."""

    name: str  # as people type it
    repo: str  # its origin
    folder: Path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file as its origin describes it, with one hash or none."""

    name: str
    size: int
    sha256: str | None = None  # of large files
    git_sha1: str | None = None  # of small files: the Git blob's id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files at one commit."""

    repo: str
    revision: str
    files: tuple[ModelFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


def folder_of(source: ModelSource, models: Path) -> Path:
    """Return where `source` is or will be stored. find.py has checked the characters of the
    names.
    """
    match source:
        case LocalModel():
            return source.folder
        case EmbeddedModel():
            return models / source.repo.replace("/", "--")
        case HubModel(revision=None):
            return models / source.repo.replace("/", "--")
        case HubModel():
            return models / f"{source.repo}@{source.revision}".replace("/", "--")


def check_owner(models: Path) -> None:
    """Raise `NotWritableError` if the existing models folder could be another user's."""
    try:
        claim(models)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotWritableError(
            f"The folder {models} is not used: {error.strerror}.", hint=_ELSEWHERE
        ) from error


def is_present(source: ModelSource, models: Path) -> bool:
    """Whether `source` can be opened without fetching."""
    folder = folder_of(source, models)
    if isinstance(source, LocalModel):
        try:
            return (folder / "config.json").is_file()
        except PermissionError:
            # Something exists, and integrity.py reports why it cannot be read.
            return True
    return read_snapshot(folder / MARKER) is not None


def read_snapshot(file: Path) -> Snapshot | None:
    """Return the snapshot that a marker describes; None for a missing or unreadable marker."""
    try:
        stored = cast("dict[str, Any]", read_json(read_file(file)))
        files = tuple(_model_file(entry) for entry in stored["files"])
        return Snapshot(repo=str(stored["repo"]), revision=str(stored["revision"]), files=files)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _model_file(entry: dict[str, Any]) -> ModelFile:
    """Raises TypeError or KeyError for an entry that pensieve cannot have written."""
    if not isinstance(entry["name"], str) or type(entry["size"]) is not int:
        raise TypeError("a file without name or size")
    return ModelFile(**entry)


def write_snapshot(snapshot: Snapshot, file: Path) -> None:
    """Write a marker atomically."""
    write_atomically(file, f"{json.dumps(asdict(snapshot), indent=1)}\n".encode(), mode=0o666)


def publish(filled: Path, destination: Path) -> None:
    """Rename `filled`, whose marker is written, to the model folder `destination`."""
    sync_path(filled)
    discarded = destination.with_name(destination.name + ".old")
    shutil.rmtree(discarded, ignore_errors=True)
    if destination.exists():
        destination.rename(discarded)
    filled.rename(destination)
    sync_path(destination.parent)
    shutil.rmtree(discarded, ignore_errors=True)


@contextmanager
def locked(destination: Path) -> Generator[None]:
    """Hold the lock for filling `destination`; other processes wait. The kernel releases a dead
    one's.

    Raises `NotWritableError` if the folder cannot be created.
    """
    folder = destination.parent
    try:
        make_folder(folder, may_be_link=True)
        exclude_from_backups(folder)
        opened = open_private(
            folder.joinpath(f".{destination.name}.lock"), os.O_WRONLY | os.O_CREAT
        )
    except OSError as error:
        raise NotWritableError(
            f"The folder {folder} cannot be written to: {error.strerror}.", hint=_ELSEWHERE
        ) from error
    with os.fdopen(opened, "wb") as lock, private_umask():
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
