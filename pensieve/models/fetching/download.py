"""A model from the Hub into its folder: resumable, verified, published whole.

While it is fetched, `<folder>.partial` holds the plan (the snapshot, so that a later start goes on with the same commit),
verified files under their names and the current one as `<name>.part`.
"""

import errno
import random
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pensieve.atomic_files import sync_path
from pensieve.errors import DiskFullError, ModelDamagedError, ModelUnsupportedError
from pensieve.models.catalog.sources import HubModel
from pensieve.models.fetching.hub import Hub, HubInterruptedError, RevisionNotFoundError, Transfer
from pensieve.models.fetching.hub_exchange import MIN_WINDOW_BYTES
from pensieve.models.fetching.progress import Progress, Unseen
from pensieve.models.fetching.verify import is_as_published
from pensieve.models.folder.architecture_support import (
    MLX_FORM,
    MlxLm,
    check_config,
    installed_mlx_lm,
)
from pensieve.models.folder.integrity import read_json
from pensieve.models.folder.snapshot import (
    MARKER,
    PARTIAL,
    ModelFile,
    ModelFolder,
    Snapshot,
    publish,
    read_snapshot,
    write_snapshot,
)

CONFIG = "config.json"
# Real ones have some 10 kB; what is larger is not fetched to be looked at.
MAX_CONFIG_BYTES = 10_000_000
# Tries in a row that brought next to nothing before the error is shown: waits of 1, 2, 4 and 8 s.
ATTEMPTS = 5
MAX_WAIT_S = 60
# Room beside the model: file systems keep some, and the server writes logs.
DISK_MARGIN = 1.1


class Disk(Protocol):
    """How much room a folder's disk has; a test hands in a small one."""

    def __call__(self, folder: Path) -> int:
        """Free bytes where `folder` lies."""
        ...


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of `folder`."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Download:
    """Fetches from `hub` what `mlx_lm` loads. `sleep` waits between tries, `free` tells the room on the disk."""

    hub: Hub
    progress: Progress
    sleep: Callable[[float], None] = time.sleep
    free: Disk = free_bytes
    mlx_lm: MlxLm | None = field(default_factory=installed_mlx_lm)

    def into(self, destination: Path, model: HubModel) -> None:
        """Make `destination` a complete model folder. The caller holds its lock.

        Raises `ModelUnavailableError`, `ModelDamagedError` or `DiskFullError`; what came is kept for the next start.
        Raises `ModelUnsupportedError` for a model that would not load, before anything but its config.json has come.
        """
        partial = destination.with_name(destination.name + PARTIAL)
        snapshot = self._plan(partial, model)
        self._check_kind(partial, snapshot, model)
        here = sum(_bytes_here(partial, file) for file in snapshot.files)
        check_room(partial, snapshot.total_bytes - here, self.free)
        self.progress.begin(model.name, snapshot.total_bytes)
        try:
            self.progress.advance(here)
            for file in snapshot.files:
                self._fetch_file(partial, snapshot, file, self.progress)
        finally:
            self.progress.end()
        publish(partial, destination)

    def _plan(self, partial: Path, model: HubModel) -> Snapshot:
        """The marker goes into the partial folder first: what it lists is what is fetched, whatever the Hub's main branch does."""
        begun = read_snapshot(partial / MARKER)
        if begun:
            return begun
        shutil.rmtree(partial, ignore_errors=True)
        snapshot = self._patiently(lambda: self.hub.snapshot(model.repo, model.revision))
        partial.mkdir(parents=True)
        write_snapshot(snapshot, partial / MARKER)
        return snapshot

    def _check_kind(self, partial: Path, snapshot: Snapshot, model: HubModel) -> None:
        try:
            check_config(model.repo, self._config(partial, snapshot, model), self.mlx_lm)
        except ModelUnsupportedError:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _config(self, partial: Path, snapshot: Snapshot, model: HubModel) -> dict[str, Any]:
        for file in snapshot.files:
            if file.name == CONFIG and file.size <= MAX_CONFIG_BYTES:
                self._fetch_file(partial, snapshot, file, Unseen())
        config = read_json(ModelFolder(model.name, model.repo, partial), CONFIG)
        if config is None:
            raise ModelUnsupportedError(
                f"{model.repo} has no config.json: it is no model in MLX's form.", hint=MLX_FORM
            )
        return config

    def _patiently(self, ask: Callable[[], Snapshot]) -> Snapshot:
        """Twice: a Hub that is busy answers the second time, one that is not there should be told of at once."""
        try:
            return ask()
        except HubInterruptedError as error:
            self.sleep(_wait_s(error, 1))
            return ask()

    def _fetch_file(
        self, partial: Path, snapshot: Snapshot, file: ModelFile, progress: Progress
    ) -> None:
        if (partial / file.name).exists():
            return
        part = partial / (file.name + ".part")
        failures = 0
        while (size := _size(part)) < file.size:
            try:
                self._fetch_rest(part, snapshot, file, progress)
            except HubInterruptedError as error:
                is_progress = _size(part) >= size + MIN_WINDOW_BYTES
                failures = 1 if is_progress else failures + 1
                if failures == ATTEMPTS:
                    raise
                self.sleep(_wait_s(error, failures))
            except RevisionNotFoundError:
                # The plan's commit is gone: the next start asks the Hub for a new one.
                (partial / MARKER).unlink(missing_ok=True)
                raise
        part.touch()
        _verify(part, snapshot, file)
        sync_path(part)
        part.replace(partial / file.name)

    def _fetch_rest(
        self, part: Path, snapshot: Snapshot, file: ModelFile, progress: Progress
    ) -> None:
        with (
            self.hub.open(snapshot, file, _size(part)) as transfer,
            _told_when_full(part, self.free),
        ):
            _write(part, transfer, progress)


def purgeable_note(platform: str = sys.platform) -> str:
    """Return why Finder may show more room than a program finds; empty where there is no Finder."""
    if platform != "darwin":
        return ""
    return (
        " Purgeable space (Time Machine's snapshots, files that iCloud has), which Finder shows as available, is not counted:"
        " macOS frees it in its own time."
    )


def check_room(folder: Path, missing_bytes: int, free: Disk = free_bytes) -> None:
    """Raises `DiskFullError` where `missing_bytes` and a margin do not fit on the disk of `folder`."""
    needed = int(missing_bytes * DISK_MARGIN)
    if needed > (room := free(folder)):
        raise _disk_full(folder, f"{needed:,} bytes are needed and {room:,} are free")


@contextmanager
def _told_when_full(path: Path, free: Disk) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _disk_full(path.parent, f"{free(path.parent):,} bytes are free") from error


def _disk_full(folder: Path, figures: str) -> DiskFullError:
    return DiskFullError(
        f"The disk is too full for the model: {figures} where {folder} lies.",
        hint="Make room and start again: what is here already is kept. Or set PENSIEVE_HOME to a folder on another disk."
        + purgeable_note(),
    )


def _write(part: Path, transfer: Transfer, progress: Progress) -> None:
    """A transfer that starts over writes over what is here; its bytes count only from where the last one ended."""
    counted, position = _size(part), transfer.start
    with part.open("ab" if transfer.start else "wb") as output:
        for chunk in transfer.chunks:
            output.write(chunk)
            output.flush()  # what is counted survives the process
            position += len(chunk)
            if position > counted:
                progress.advance(position - counted)
                counted = position


def _verify(part: Path, snapshot: Snapshot, file: ModelFile) -> None:
    if is_as_published(part, file):
        return
    part.unlink()
    raise ModelDamagedError(
        f"{file.name} of {snapshot.repo} came with other content than the Hub says it has (its hash differs).",
        hint="Start again: only this file is fetched anew. If it happens again, something on the way to the Hub alters files.",
    )


def _wait_s(error: HubInterruptedError, failures: int) -> float:
    """Doubling, spread so that many clients do not come back at once; longer where the Hub asks for it."""
    waiting = 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311
    return min(max(waiting, error.retry_after_s), MAX_WAIT_S)


def _bytes_here(partial: Path, file: ModelFile) -> int:
    """Under its own name a file is verified already."""
    if (partial / file.name).exists():
        return file.size
    return min(_size(partial / (file.name + ".part")), file.size)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
