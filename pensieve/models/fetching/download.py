"""Download a model from the Hub into its folder: resumable, verified, published when complete.

During the download `<folder>.partial` holds the snapshot (so that a later start continues with the
same commit), verified files under their names and the current file as `<name>.part`.
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
from pensieve.engine.planning.mtp_files import is_head
from pensieve.errors import DiskFullError, ModelDamagedError, ModelUnsupportedError
from pensieve.models.catalog.sources import HubModel
from pensieve.models.fetching.hub import Hub, HubInterruptedError, RevisionNotFoundError, Transfer
from pensieve.models.fetching.hub_exchange import MIN_WINDOW_BYTES
from pensieve.models.fetching.progress import Progress, SilentProgress
from pensieve.models.fetching.verify import is_as_published
from pensieve.models.folder.architecture_support import (
    MLX_FORMAT,
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
# Published ones have some 10 kB; larger files are not fetched for the check.
MAX_CONFIG_BYTES = 10_000_000
# Consecutive attempts without progress before the error is raised, with waits of 1, 2, 4 and 8 s.
ATTEMPTS = 5
MAX_WAIT_S = 60
# Spare space: file systems reserve some, and the server writes logs.
DISK_MARGIN = 1.1


class Disk(Protocol):
    def __call__(self, folder: Path) -> int:
        """Return the free bytes on the disk of `folder`."""
        ...


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Download:
    hub: Hub
    progress: Progress
    sleep: Callable[[float], None] = time.sleep  # between attempts
    free: Disk = free_bytes
    mlx_lm: MlxLm | None = field(default_factory=installed_mlx_lm)  # refuses what it cannot load
    takes_heads: bool = False  # also MTP heads, which are no models

    def into(self, destination: Path, model: HubModel) -> None:
        """Make `destination` a complete model folder. The caller holds its lock.

        Raises `ModelUnavailableError`, `ModelDamagedError` or `DiskFullError`; received bytes stay
        for the next start. Raises `ModelUnsupportedError` for a model that would not load, after
        only its config.json is fetched.
        """
        partial = destination.with_name(destination.name + PARTIAL)
        snapshot = self._plan(partial, model)
        self._check_supported(partial, snapshot, model)
        received = sum(_bytes_here(partial, file) for file in snapshot.files)
        check_space(partial, snapshot.total_bytes - received, self.free)
        self.progress.begin(model.name, snapshot.total_bytes)
        try:
            self.progress.advance(received)
            for file in snapshot.files:
                self._fetch_file(partial, snapshot, file, self.progress)
        finally:
            self.progress.end()
        publish(partial, destination)

    def _plan(self, partial: Path, model: HubModel) -> Snapshot:
        """Write the marker first: the download follows it, whatever the Hub's main branch
        becomes.
        """
        started = read_snapshot(partial / MARKER)
        if started:
            return started
        shutil.rmtree(partial, ignore_errors=True)
        snapshot = self._retry_once(lambda: self.hub.snapshot(model.repo, model.revision))
        partial.mkdir(parents=True)
        write_snapshot(snapshot, partial / MARKER)
        return snapshot

    def _check_supported(self, partial: Path, snapshot: Snapshot, model: HubModel) -> None:
        try:
            config = self._config(partial, snapshot, model)
            if not self.takes_heads or not is_head(config):
                check_config(model.repo, config, self.mlx_lm)
        except ModelUnsupportedError:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _config(self, partial: Path, snapshot: Snapshot, model: HubModel) -> dict[str, Any]:
        for file in snapshot.files:
            if file.name == CONFIG and file.size <= MAX_CONFIG_BYTES:
                self._fetch_file(partial, snapshot, file, SilentProgress())
        config = read_json(ModelFolder(model.name, model.repo, partial), CONFIG)
        if config is None:
            raise ModelUnsupportedError(
                f"{model.repo} has no config.json: it is not a model in MLX's format.",
                hint=MLX_FORMAT,
            )
        return config

    def _retry_once(self, request: Callable[[], Snapshot]) -> Snapshot:
        """Try twice: a busy Hub answers the second time, and an unreachable one is reported
        soon.
        """
        try:
            return request()
        except HubInterruptedError as error:
            self.sleep(_wait_s(error, 1))
            return request()

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
                # The commit was removed: the next start asks the Hub for a new one.
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
            _disk_full_translated(part, self.free),
        ):
            _write(part, transfer, progress)


def purgeable_note(platform: str = sys.platform) -> str:
    """Return why Finder may show more free space than programs see; empty without Finder."""
    if platform != "darwin":
        return ""
    return (
        " Purgeable space (Time Machine's snapshots, files that iCloud has), which Finder shows as"
        " available, is not counted: macOS frees it in its own time."
    )


def check_space(folder: Path, missing_bytes: int, free: Disk = free_bytes) -> None:
    """Raise `DiskFullError` if `missing_bytes` and a margin do not fit on the disk of `folder`."""
    needed = int(missing_bytes * DISK_MARGIN)
    if needed > (available := free(folder)):
        raise _disk_full(folder, f"{needed:,} bytes are needed and {available:,} are free")


@contextmanager
def _disk_full_translated(path: Path, free: Disk) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise _disk_full(path.parent, f"{free(path.parent):,} bytes are free") from error


def _disk_full(folder: Path, numbers: str) -> DiskFullError:
    return DiskFullError(
        f"The disk is too full for the model: {numbers} on the disk of {folder}.",
        hint="Free disk space and start again: fetched files are reused. Or set PENSIEVE_HOME to"
        f" a folder on another disk.{purgeable_note()}",
    )


def _write(part: Path, transfer: Transfer, progress: Progress) -> None:
    """Append chunks; a transfer from 0 overwrites the file, and counts progress only beyond its old
    end.
    """
    counted, position = _size(part), transfer.start
    with part.open("ab" if transfer.start else "wb") as output:
        for chunk in transfer.chunks:
            output.write(chunk)
            output.flush()  # counted bytes survive the process
            position += len(chunk)
            if position > counted:
                progress.advance(position - counted)
                counted = position


def _verify(part: Path, snapshot: Snapshot, file: ModelFile) -> None:
    if is_as_published(part, file):
        return
    part.unlink()
    raise ModelDamagedError(
        f"{file.name} of {snapshot.repo} arrived with other content than the Hub lists (its hash"
        " differs).",
        hint="Start again: only this file is fetched again. If it happens again, something between"
        " here and the Hub modifies files.",
    )


def _wait_s(error: HubInterruptedError, failures: int) -> float:
    """Back off exponentially with jitter, at least as long as the Hub requests."""
    delay_s = 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311
    return min(max(delay_s, error.retry_after_s), MAX_WAIT_S)


def _bytes_here(partial: Path, file: ModelFile) -> int:
    """Return the fetched bytes; a file under its final name is verified."""
    if (partial / file.name).exists():
        return file.size
    return min(_size(partial / (file.name + ".part")), file.size)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
