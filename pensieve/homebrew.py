"""Where Homebrew puts this program, its service and the service's log; and whether the program is still on the disk.

Paths alone: it runs nothing and reads no environment.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pensieve

# `brew services start` writes one for the user at login, `sudo brew services start` one for the machine.
SERVICE_FILE = "homebrew.*.pensieve.plist"
MACHINE_SERVICES = Path("/Library/LaunchDaemons")


@dataclass(frozen=True, slots=True)
class Keg:
    """A formula as it is installed: `<root>/Cellar/<name>/<version>`."""

    root: Path
    name: str

    @property
    def log(self) -> Path:
        """Where the formula has launchd write the service's output."""
        return self.root / "var" / "log" / f"{self.name}.log"


def keg_of(prefix: Path = Path(sys.prefix)) -> Keg | None:
    """Return the keg that the Python environment `prefix` lies in; None where Homebrew did not install it."""
    parts = prefix.parts
    if "Cellar" not in parts[:-2]:
        return None
    at = parts.index("Cellar")
    return Keg(Path(*parts[:at]), parts[at + 1])


def service_file(home: Path, machine: Path = MACHINE_SERVICES) -> Path | None:
    """Return launchd's file of our service, the user's before the machine's; None where there is none."""
    folders = (home / "Library" / "LaunchAgents", machine)
    return next((file for folder in folders for file in folder.glob(SERVICE_FILE)), None)


# What a late import and a child process need: the interpreter, its library and our package.
PROGRAM = (Path(sys.executable), Path(os.__file__), Path(pensieve.__file__))


def is_installed(program: Iterable[Path] = PROGRAM) -> bool:
    """Whether the running program is still on the disk. `brew upgrade`, of it or of Python, removes it from under the server."""
    return all(part.exists() for part in program)
