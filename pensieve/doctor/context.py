"""All that is looked at, gathered once: the examinations take this value and go nowhere else for the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pensieve.daemon.health_client import Health, ask
from pensieve.daemon.server_record import ServerRecord, current, logs_of
from pensieve.errors import SettingsError
from pensieve.homebrew import Keg, keg_of
from pensieve.machine import Machine, inspect
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """settings: the defaults where `settings_error` says that they cannot be read. record, health: of the running server.

    working_folder: where Claude Code would look for a project's settings. keg: of Homebrew's installation, where it is one.
    """

    machine: Machine
    settings: Settings
    settings_error: SettingsError | None
    environ: Mapping[str, str]
    home: Path
    working_folder: Path
    record: ServerRecord | None
    health: Health | None
    keg: Keg | None = None

    @property
    def logs(self) -> list[Path]:
        """The logs of this home's servers, the last written last."""
        return logs_of(self.settings.paths, self.record, self.keg)

    @property
    def model(self) -> str:
        """The model that is served, else the one that `start` would take, as one would name it: a folder by its path."""
        if self.record is None:
            return self.settings.model
        repo = self.health.repo if self.health else ""
        return repo if repo.startswith("/") else self.record.model


def collect() -> DoctorContext:
    """This machine, this user, this moment."""
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
        keg=keg_of(),
    )


def _settings() -> tuple[Settings, SettingsError | None]:
    try:
        return settings_module.resolve(), None
    except SettingsError as error:
        return Settings(settings_module.resolve_paths()), error


def _working_folder() -> Path:
    """The folder that one stands in may be gone."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")
