"""`pensieve uninstall`: lists or removes pensieve's files, not the program itself."""

import shutil
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pensieve.atomic_files import set_aside_names
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import current
from pensieve.errors import MachineError, NotWritableError
from pensieve.installation import MACHINE_SERVICES, Keg, installation, keg_of, service_file
from pensieve.logs import earlier
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module


def uninstall(
    *, purge: bool = False, yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False
) -> int:
    """List the files that pensieve keeps on this machine, or remove them.

    For example:
      pensieve uninstall
      pensieve uninstall --purge

    Parameters
    ----------
    purge
        Remove models, cached prompts, batches, files, logs and configuration.
    yes
        Remove without confirmation.
    """
    paths = settings_module.resolve_paths()
    existing = [each for each in owned_paths(paths, keg_of()) if each.exists()]
    outermost = [each for each in existing if not set(existing) & set(each.parents)]
    sizes = [(each, _size(each)) for each in outermost]
    for path, size_bytes in sizes:
        output.data(f"{in_bytes(size_bytes):>10}  {path}")
    if not sizes:
        output.data("pensieve has no files on this machine.")
    elif not purge:
        output.note("To remove all of it:\n  pensieve uninstall --purge")
    elif not _purge(paths, [path for path, _ in sizes], is_confirmed=yes):
        output.note("Nothing is removed.")
        return 1
    else:
        output.note("All of it is removed.")
    service = service_file(Path.home())
    stop_step = f"  {_stop_service(service)}\n" if service else ""
    output.note(f"To remove the program:\n{stop_step}  {_removal_command(service)}")
    return 0


def owned_paths(paths: Paths, keg: Keg | None) -> list[Path]:
    """Return every folder and file of pensieve's own, none of which is shared with others."""
    return [
        paths.models,
        paths.prefixes,
        paths.bench,
        paths.state,
        paths.logs,
        paths.config_file,
        *set_aside_names(paths.config_file),
        *([keg.log, earlier(keg.log)] if keg else []),
    ]


def _purge(paths: Paths, existing: list[Path], *, is_confirmed: bool) -> bool:
    if server_lock.is_held(paths):
        raise MachineError(
            "The server is running.", hint=f"Stop it first:\n  {_stop_server(paths)}"
        )
    if not is_confirmed and not output.confirm(
        "Remove all of it?", command="pensieve uninstall --purge --yes"
    ):
        return False
    for path in existing:
        try:
            _remove(path)
        except OSError as error:
            raise NotWritableError(f"{path} cannot be removed: {error.strerror}.") from error
    for folder in {paths.models.parent, paths.config_file.parent, paths.state.parent}:
        if folder.name == "pensieve" and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    return True


def _stop_server(paths: Paths) -> str:
    record = current(paths)
    return (
        _stop_service(service_file(Path.home())) if record and record.service else "pensieve stop"
    )


def _removal_command(service: Path | None) -> str:
    """Return the installer's command: only Homebrew makes a service."""
    return "brew uninstall pensieve" if service else installation().removal_command()


def _stop_service(file: Path | None) -> str:
    """`brew uninstall` keeps launchd's file, and launchd would retry the program forever."""
    as_root = "sudo " if file and file.parent == MACHINE_SERVICES else ""
    return f"{as_root}brew services stop pensieve"


def _remove(path: Path) -> None:
    """Remove a symlink itself, not its target."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
