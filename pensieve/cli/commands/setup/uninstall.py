"""`pensieve uninstall`: what remains on this machine once the program is gone, and removing it."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import current
from pensieve.errors import MachineError, NotWritableError
from pensieve.homebrew import MACHINE_SERVICES, Keg, keg_of, service_file
from pensieve.logs import earlier
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module


def uninstall(
    *, purge: bool = False, yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False
) -> int:
    """List what pensieve keeps on this machine, and how all of it is removed.

    For example:
      pensieve uninstall
      pensieve uninstall --purge

    Parameters
    ----------
    purge
        Remove it: models, kept prompts, batches, files, logs, configuration.
    yes
        Do not ask before that.
    """
    paths = settings_module.resolve_paths()
    found = [each for each in places(paths, keg_of()) if each.exists()]
    outer = [each for each in found if not set(found) & set(each.parents)]
    kept = [(each, _size(each)) for each in outer]
    for place, size_bytes in kept:
        output.data(f"{in_bytes(size_bytes):>10}  {place}")
    if not kept:
        output.data("Nothing is kept on this machine.")
    elif not purge:
        output.note("To remove that:\n  pensieve uninstall --purge")
    elif not _purge(paths, [place for place, _ in kept], is_agreed=yes):
        output.note("Nothing is removed.")
        return 1
    else:
        output.note("All of that is removed.")
    service = service_file(Path.home())
    stopped_first = f"  {_stop_service(service)}\n" if service else ""
    output.note(f"To remove the program:\n{stopped_first}  {_removal(service)}")
    return 0


def places(paths: Paths, keg: Keg | None) -> list[Path]:
    """Every folder and file of pensieve's own. None of them is a folder that others use too."""
    return [
        paths.models,
        paths.prefixes,
        paths.state,
        paths.logs,
        paths.config_file,
        paths.config_file.with_name(paths.config_file.name + ".broken"),
        *([keg.log, earlier(keg.log)] if keg else []),
    ]


def _purge(paths: Paths, found: list[Path], *, is_agreed: bool) -> bool:
    if server_lock.is_held(paths):
        raise MachineError("The server runs.", hint=f"Stop it first:\n  {_stop_server(paths)}")
    if not is_agreed and not output.confirm(
        "Remove all of that?", command="pensieve uninstall --purge --yes"
    ):
        return False
    for place in found:
        try:
            _remove(place)
        except OSError as error:
            raise NotWritableError(f"{place} cannot be removed: {error.strerror}.") from error
    for folder in {paths.models.parent, paths.config_file.parent, paths.state.parent}:
        if folder.name == "pensieve" and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    return True


def _stop_server(paths: Paths) -> str:
    record = current(paths)
    return (
        _stop_service(service_file(Path.home())) if record and record.service else "pensieve stop"
    )


def _removal(service: Path | None) -> str:
    """Return the command of what installed it: only Homebrew makes a service."""
    if service or keg_of():
        return "brew uninstall pensieve"
    return f"{shlex.quote(sys.executable)} -m pip uninstall pensieve-llm"


def _stop_service(file: Path | None) -> str:
    """`brew uninstall` leaves launchd's file where it is: launchd would try for ever to start a program that is gone."""
    as_root = "sudo " if file and file.parent == MACHINE_SERVICES else ""
    return f"{as_root}brew services stop pensieve"


def _remove(place: Path) -> None:
    """A link is removed, not what it leads to."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)


def _size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.lstat().st_size for file in files if file.is_file())
