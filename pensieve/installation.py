"""How this program was installed: its folder, Homebrew's files, and the commands that install,
update or remove it there.

Used by the server, doctor and the commands, and by errors about a missing package. It runs nothing
and reads no environment.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pensieve
from pensieve.untrusted_json import read_object

DISTRIBUTION = "pensieve-llm"
FILE_URL = "file://"
# `make brew` writes it; Homebrew cannot update it.
LOCAL_TAP = "local/pensieve"
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


@dataclass(frozen=True, slots=True)
class Installation:
    python: Path  # the interpreter of its environment
    keg: Keg | None = None
    is_from_local_tap: bool = False  # of Homebrew
    checkout: Path | None = None  # the folder that pip installed from
    is_editable: bool = False  # the program runs from the checkout
    url: str = ""  # that pip installed from; empty for a package index

    def requirement(self, extra: str = "") -> str:
        """Return what pip installs it from, with an extra of pyproject.toml, quoted for a shell."""
        extras = f"[{extra}]" if extra else ""
        if self.checkout:
            return shlex.quote(f"{self.checkout}{extras}")
        return shlex.quote(f"{DISTRIBUTION}{extras}{f' @ {self.url}' if self.url else ''}")

    def install_command(self, extra: str = "") -> str:
        """Return the command that installs it again, with this extra."""
        if self.keg:
            return "brew reinstall pensieve"
        editable = "--editable " if self.is_editable else ""
        return f"{self._pip('install')} {editable}{self.requirement(extra)}"

    def update_command(self) -> str:
        if self.keg:
            in_clone = "git pull && make brew    # in your clone of pensieve"
            return in_clone if self.is_from_local_tap else "brew upgrade pensieve"
        if self.checkout is None:
            return f"{self._pip('install')} --upgrade {self.requirement()}"
        return f"git -C {shlex.quote(str(self.checkout))} pull && {self.install_command()}"

    def removal_command(self) -> str:
        return "brew uninstall pensieve" if self.keg else f"{self._pip('uninstall')} {DISTRIBUTION}"

    def _pip(self, command: str) -> str:
        return f"{shlex.quote(str(self.python))} -m pip {command}"


def installation() -> Installation:
    """Return how the running program was installed."""
    python = Path(sys.executable)
    if keg := keg_of():
        return Installation(python, keg, is_from_local_tap=tap_of(Path(sys.prefix)) == LOCAL_TAP)
    return pip_installation(python, Path(pensieve.__file__).parents[1], _direct_url())


def tap_of(prefix: Path) -> object:
    """Return the tap of the keg with the Python environment `prefix`; None if it is unknown."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        receipt: dict[str, Any] = read_object((prefix.parent / "INSTALL_RECEIPT.json").read_bytes())
        return receipt["source"]["tap"]
    return None


def pip_installation(python: Path, root: Path, direct_url: str) -> Installation:
    """`root`: the folder with the package. `direct_url`: the file of that name that pip keeps for
    what is not from an index (PEP 610); empty without one.
    """
    if (root / "pyproject.toml").is_file():
        return Installation(python, checkout=root, is_editable=True)
    with suppress(ValueError, KeyError, TypeError):
        origin: dict[str, Any] = read_object(direct_url)
        url = str(origin["url"])
        if "dir_info" in origin and url.startswith(FILE_URL):
            return Installation(python, checkout=_path_in(url))
        vcs = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
        return Installation(python, url=f"{vcs}{url}")
    return Installation(python)


def _path_in(url: str) -> Path:
    from urllib.parse import unquote  # slow to import

    return Path(unquote(url.removeprefix(FILE_URL)))


def _direct_url() -> str:
    from importlib import metadata  # slow to import

    with suppress(metadata.PackageNotFoundError):
        return metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or ""
    return ""


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
