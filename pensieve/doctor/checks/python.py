"""Which Python pensieve runs on, and packages that come to it from elsewhere.

A package of another Python breaks a program in its own name: a `pydantic` out of PYTHONPATH or
out of the user's own site-packages fails as if it were ours. Also read by `cli/app.py`, where an
error is such a package's.
"""

import os
import platform
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pensieve.doctor.finding import Finding, ok, warning
from pensieve.errors import InstallationError
from pensieve.isolation import python_variables

if TYPE_CHECKING:
    from pensieve.doctor.context import DoctorContext

DISTRIBUTION = "pensieve-llm"


def check(patient: "DoctorContext") -> Iterator[Finding]:
    """The interpreter, the user's Python variables, and which of our packages lie elsewhere."""
    prefix = sys.prefix.replace(str(patient.home), "~", 1)
    yield ok("python", f"{platform.python_version()} in {prefix}{_unread(patient.environ)}")
    for name in required_packages():
        if (file := _origin(name)) and _is_foreign(file):
            where = _entry_of(file)
            text = f"{name} comes from {where}, {_way_to(where, patient.environ)}: not pensieve's"
            yield warning("package", text, _fix(where, patient.environ))


def blamed(error: BaseException, environ: Mapping[str, str]) -> InstallationError | None:
    """Return what to say where `error` is a foreign package's, or a package of ours is missing."""
    if file := next(filter(_is_foreign, _files_of(error)), None):
        where = _entry_of(file)
        name = file.relative_to(where).parts[0].removesuffix(".py")
        return InstallationError(
            f"The Python package {name} in {where} is not pensieve's own, and fails:"
            f" {type(error).__name__}: {error}. It comes in {_way_to(where, environ)}.",
            hint=f"Leave it out:\n  {_fix(where, environ)}",
        )
    if isinstance(error, ModuleNotFoundError) and error.name in required_packages():
        return InstallationError(
            f"pensieve is not installed whole: there is no Python package {error.name}.",
            hint=f"Install it again:\n  {_reinstall()}",
        )
    return None


def required_packages() -> tuple[str, ...]:
    """Return the names under which what pensieve requires is imported, as far as they are alike."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return ()
    names = [_name_in(requirement) for requirement in required if "extra ==" not in requirement]
    return tuple(dict.fromkeys(names))


def _name_in(requirement: str) -> str:
    end = next((at for at, char in enumerate(requirement) if char in "<>=!~;[ ("), None)
    return requirement[:end].lower().replace("-", "_")


def _unread(environ: Mapping[str, str]) -> str:
    names = python_variables(environ)
    if not names:
        return ""
    holds = _packages_in(environ.get("PYTHONPATH", ""))
    also = f" PYTHONPATH also leads to another {', '.join(holds)}." if holds else ""
    return f". Set in this shell and not read: {', '.join(names)}.{also}"


def _packages_in(path: str) -> list[str]:
    folders = [Path(entry) for entry in path.split(os.pathsep) if entry]
    return [
        name
        for name in required_packages()
        if any((folder / name).is_dir() or (folder / f"{name}.py").exists() for folder in folders)
    ]


def _origin(name: str) -> Path | None:
    """Find a package without importing it."""
    try:
        found = util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found and found.origin else None


def _files_of(error: BaseException) -> Iterator[Path]:
    """Yield where it was raised, and who called there, the innermost first."""
    if isinstance(error, ImportError | SyntaxError):
        named = error.path if isinstance(error, ImportError) else error.filename
        if named:
            yield Path(named)
    frames: list[Path] = []
    step: TracebackType | None = error.__traceback__
    while step:
        frames.append(Path(step.tb_frame.f_code.co_filename))
        step = step.tb_next
    yield from reversed(frames)


def _is_foreign(file: Path) -> bool:
    """Whether a file is neither Python's nor of this installation."""
    if not file.is_absolute():
        return False
    paths = sysconfig.get_paths()
    ours = Path(__file__).parents[3]
    places = {Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(file.is_relative_to(place) for place in {*places, ours})


def _entry_of(file: Path) -> Path:
    """The entry of the import path through which `file` is found."""
    entries = [Path(entry) for entry in sys.path if entry and file.is_relative_to(entry)]
    return max(entries, key=lambda entry: len(entry.parts), default=file.parent)


def _way_to(entry: Path, environ: Mapping[str, str]) -> str:
    if str(entry) in environ.get("PYTHONPATH", "").split(os.pathsep):
        return "by PYTHONPATH"
    if str(entry) == site.getusersitepackages():
        return "as one of the user's own packages (pip install --user)"
    return "by the import path of this Python"


def _fix(entry: Path, environ: Mapping[str, str]) -> str:
    if str(entry) in environ.get("PYTHONPATH", "").split(os.pathsep):
        return "unset PYTHONPATH"
    return _reinstall()


def _reinstall() -> str:
    if sys.platform == "darwin" and "Cellar" in sys.prefix:
        return "brew reinstall pensieve"
    return f"python3 -m venv ~/pensieve && ~/pensieve/bin/pip install {DISTRIBUTION}"
