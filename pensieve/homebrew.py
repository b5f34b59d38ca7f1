"""Where Homebrew puts this program, its service and the service's log; and whether the program is still on the disk.

Paths alone: it runs nothing and reads no environment.
"""

import sys
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


def is_installed(
    python: Path = Path(sys.executable), package: Path = Path(pensieve.__file__)
) -> bool:
    """Whether the running program is still on the disk. `brew upgrade` removes it while the server runs from it."""
    return python.exists() and package.exists()
