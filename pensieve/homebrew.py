"""Where Homebrew installs this program, its service and the service's log.

Used by the server, doctor and the setup commands. It runs nothing and reads no environment.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pensieve

# `brew services start` writes one for the user, `sudo brew services start` one for the machine.
SERVICE_FILE = "homebrew.*.pensieve.plist"
MACHINE_SERVICES = Path("/Library/LaunchDaemons")


@dataclass(frozen=True, slots=True)
class Keg:
    """An installed formula: `<root>/Cellar/<name>/<version>`."""

    root: Path
    name: str

    @property
    def log(self) -> Path:
        """The file to which launchd writes the service's output, by the formula."""
        return self.root / "var" / "log" / f"{self.name}.log"


def keg_of(prefix: Path = Path(sys.prefix)) -> Keg | None:
    """Return the keg that contains the Python environment `prefix`; None without Homebrew."""
    parts = prefix.parts
    if "Cellar" not in parts[:-2]:
        return None
    index = parts.index("Cellar")
    return Keg(Path(*parts[:index]), parts[index + 1])


def service_file(home: Path, machine: Path = MACHINE_SERVICES) -> Path | None:
    """Return launchd's file for our service, the user's before the machine's; None without one."""
    folders = (home / "Library" / "LaunchAgents", machine)
    return next((file for folder in folders for file in folder.glob(SERVICE_FILE)), None)


# Late imports and child processes need these: the interpreter, its library and our package.
PROGRAM = (Path(sys.executable), Path(os.__file__), Path(pensieve.__file__))


def is_installed(program: Iterable[Path] = PROGRAM) -> bool:
    """Whether the running program is still on the disk. `brew upgrade` of pensieve or of Python
    removes it while the server runs.
    """
    return all(part.exists() for part in program)
