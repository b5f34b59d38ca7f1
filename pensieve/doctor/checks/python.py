"""Check which Python runs pensieve, and find packages that come from elsewhere.

A package of another Python makes pensieve fail as if the fault were its own: a `pydantic` from
PYTHONPATH or from the user's site-packages, for example. `cli/app.py` uses this to attribute
errors.
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
from pensieve.installation import DISTRIBUTION, installation
from pensieve.isolation import python_variables

if TYPE_CHECKING:
    from pensieve.doctor.context import DoctorContext


def check(context: "DoctorContext") -> Iterator[Finding]:
    """Report the interpreter, the user's Python variables, and foreign copies of our packages."""
    prefix = sys.prefix.replace(str(context.home), "~", 1)
    yield ok(
        "python", f"{platform.python_version()} in {prefix}{_ignored_variables(context.environ)}"
    )
    for name in required_packages():
        if (file := _origin(name)) and _is_foreign(file):
            where = _entry_of(file)
            text = f"{name} is from {where}, {_source_of(where, context.environ)}: not pensieve's"
            yield warning("package", text, _fix(where, context.environ))


def blamed(error: BaseException, environ: Mapping[str, str]) -> InstallationError | None:
    """Return the error to show if a foreign package raised `error` or one of ours is missing."""
    if file := next(filter(_is_foreign, _files_of(error)), None):
        where = _entry_of(file)
        name = file.relative_to(where).parts[0].removesuffix(".py")
        return InstallationError(
            f"The Python package {name} in {where} is not pensieve's own, and fails:"
            f" {type(error).__name__}: {error}. It is found {_source_of(where, environ)}.",
            hint=f"Exclude it:\n  {_fix(where, environ)}",
        )
    if isinstance(error, ModuleNotFoundError) and error.name in required_packages():
        return InstallationError(
            f"pensieve is not completely installed: the Python package {error.name} is missing.",
            hint=f"Install it again:\n  {_reinstall()}",
        )
    return None


def required_packages() -> tuple[str, ...]:
    """Return the import names of pensieve's requirements, as far as they equal the package
    names.
    """
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return ()
    names = [_name_in(requirement) for requirement in required if "extra ==" not in requirement]
    return tuple(dict.fromkeys(names))


def _name_in(requirement: str) -> str:
    end = next((index for index, char in enumerate(requirement) if char in "<>=!~;[ ("), None)
    return requirement[:end].lower().replace("-", "_")


def _ignored_variables(environ: Mapping[str, str]) -> str:
    names = python_variables(environ)
    if not names:
        return ""
    packages = _packages_in(environ.get("PYTHONPATH", ""))
    also = f" PYTHONPATH also leads to another {', '.join(packages)}." if packages else ""
    return f". Set in this shell and not read: {', '.join(names)}.{also}"


def _packages_in(path: str) -> list[str]:
    folders = [Path(entry) for entry in path.split(os.pathsep) if entry]
    return [
        name
        for name in required_packages()
        if any((folder / name).is_dir() or (folder / f"{name}.py").exists() for folder in folders)
    ]


def _origin(name: str) -> Path | None:
    """Find a package's file without importing the package."""
    try:
        spec = util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _files_of(error: BaseException) -> Iterator[Path]:
    """Yield the files of the traceback, the innermost first."""
    if isinstance(error, ImportError | SyntaxError):
        path = error.path if isinstance(error, ImportError) else error.filename
        if path:
            yield Path(path)
    frames: list[Path] = []
    traceback: TracebackType | None = error.__traceback__
    while traceback:
        frames.append(Path(traceback.tb_frame.f_code.co_filename))
        traceback = traceback.tb_next
    yield from reversed(frames)


def _is_foreign(file: Path) -> bool:
    """Whether a file belongs neither to Python nor to this installation."""
    if not file.is_absolute():
        return False
    paths = sysconfig.get_paths()
    ours = Path(__file__).parents[3]
    roots = {Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(file.is_relative_to(root) for root in {*roots, ours})


def _entry_of(file: Path) -> Path:
    """Return the entry of the import path that leads to `file`."""
    entries = [Path(entry) for entry in sys.path if entry and file.is_relative_to(entry)]
    return max(entries, key=lambda entry: len(entry.parts), default=file.parent)


def _source_of(entry: Path, environ: Mapping[str, str]) -> str:
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
    installed = installation()
    if installed.keg:
        return installed.install_command()
    requirement = installed.requirement("cpu" if sys.platform == "linux" else "")
    return f"python3 -m venv ~/pensieve && ~/pensieve/bin/pip install {requirement}"
