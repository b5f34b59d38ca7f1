"""Everything that the checks examine, collected once; checks do not read the environment
themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pensieve.daemon.health_client import Health, ask
from pensieve.daemon.server_record import ServerRecord, current, logs_of, lost_record
from pensieve.errors import RecordUnreadableError, SettingsError
from pensieve.installation import Installation, installation
from pensieve.machine import Machine, inspect
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings


@dataclass(frozen=True, slots=True)
class DoctorContext:
    machine: Machine
    settings: Settings  # the defaults if there is a `settings_error`
    settings_error: SettingsError | None
    environ: Mapping[str, str]
    home: Path
    working_folder: Path  # where Claude Code looks for a project's settings
    record: ServerRecord | None  # of the running server
    health: Health | None
    installation: Installation
    lost_record: RecordUnreadableError | None = None  # a server runs, but its record is unreadable

    @property
    def logs(self) -> list[Path]:
        """The logs of this home's servers, the last written one last."""
        return logs_of(self.settings.paths, self.record, self.installation.keg)

    @property
    def server_pid(self) -> int | None:
        """The running server's process id; None if none runs, or if it is unknown."""
        server = self.record or self.lost_record
        return server.pid if server else None

    @property
    def model(self) -> str:
        """The served model, else the one that `start` would serve, as a person names it: a
        folder by path.
        """
        if self.record is None:
            return self.settings.model
        repo = self.health.repo if self.health else ""
        return repo if repo.startswith("/") else self.record.model


def collect() -> DoctorContext:
    settings, error = _settings()
    environ = settings_module.child_environment({})
    record = current(settings.paths)
    return DoctorContext(
        machine=inspect(),
        settings=settings,
        settings_error=error,
        environ=environ,
        home=Path(environ.get("HOME") or Path.home()),
        working_folder=_working_folder(),
        record=record,
        health=ask(record) if record else None,
        installation=installation(),
        lost_record=lost_record(settings.paths),
    )


def context_within_server(settings: Settings) -> DoctorContext:
    """Return what a server knows without asking itself."""
    environ = settings_module.child_environment({})
    return DoctorContext(
        machine=inspect(),
        settings=settings,
        settings_error=None,
        environ=environ,
        home=Path(environ.get("HOME") or Path.home()),
        working_folder=Path("/"),
        record=None,
        health=None,
        installation=installation(),
    )


def _settings() -> tuple[Settings, SettingsError | None]:
    try:
        return settings_module.resolve(), None
    except SettingsError as error:
        return Settings(settings_module.resolve_paths()), error


def _working_folder() -> Path:
    """Return / if the working folder was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")
