"""Imports llguidance, and aligns its library where macOS 27 refuses the one that pip installs.

Called by the grammar threads. The formula and `make` align the library at install time; an
environment made by pip alone is aligned here. macOS ends a process that maps a library whose
signature it does not accept, so another process loads the aligned library first.
"""

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pensieve.engine.grammar import macho
from pensieve.errors import GrammarError
from pensieve.isolation import python

PACKAGE = "llguidance"
TRIAL_TIMEOUT_S = 30


def import_library() -> None:
    """Import llguidance, aligning its library if needed. Raises `GrammarError`."""
    try:
        importlib.import_module(PACKAGE)
    except ImportError as error:
        if not align_package(_folder(), macho.sign, _loads_elsewhere):
            raise _not_loaded(error) from error
        _import_aligned()


def align_package(folder: Path, sign: macho.Sign, loads: Callable[[], bool]) -> bool:
    """Align a package's libraries; return whether it `loads`, else restore them."""
    originals = {file: file.read_bytes() for file in macho.misaligned(folder)}
    try:
        if macho.align(folder, sign) and loads():
            return True
    except (OSError, subprocess.SubprocessError):
        pass  # folder not writable, or no codesign: the import error explains the rest
    _restore(originals)
    return False


def _restore(originals: dict[Path, bytes]) -> None:
    for file, image in originals.items():
        if file.read_bytes() != image:
            macho.replace(file, image, sign=lambda _: None)  # it contains its signature


def _import_aligned() -> None:
    try:
        importlib.import_module(PACKAGE)
    except ImportError as error:
        raise _not_loaded(error) from error


def _loads_elsewhere() -> bool:
    trial = subprocess.run(  # noqa: S603 -- this interpreter, a fixed program
        python("-c", f"import {PACKAGE}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=TRIAL_TIMEOUT_S,
        check=False,
    )
    return trial.returncode == 0


def _folder() -> Path:
    """Return the package's folder, which may not exist."""
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent if spec and spec.origin else Path(sys.prefix) / PACKAGE


def _not_loaded(error: ImportError) -> GrammarError:
    return GrammarError(
        f"llguidance does not load on this machine, so no answer can follow a grammar: {error}."
        f" To reinstall it: {reinstall_command(Path(sys.prefix))}"
    )


def reinstall_command(prefix: Path) -> str:
    """Return the command that reinstalls llguidance in the Python environment `prefix`."""
    if "Cellar" in prefix.parts:
        return "brew reinstall pensieve"
    python = prefix / "bin" / "python"
    return f"{python} -m pip install --force-reinstall --no-deps {_pinned()}"


def _pinned() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{PACKAGE}=={version(PACKAGE)}"
    except PackageNotFoundError:
        return PACKAGE
