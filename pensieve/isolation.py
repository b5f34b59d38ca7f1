"""Keep the user's Python variables (PYTHONPATH, PYTHONOPTIMIZE, …) out of this program and its children.

Imported before everything else, so it imports nothing but what the interpreter itself has loaded.
"""

import os
import sys

TYPE_CHECKING = False  # as `typing` has it, which is not loaded here
if TYPE_CHECKING:
    from collections.abc import Mapping

# -P: the working folder is not on the import path. Not -I, which hides a `pip install --user`.
OPTIONS = ("-E", "-P")
# Container images set them as a rule, and they change no result. `PYTHON` is not Python's own.
_HARMLESS = {"PYTHON", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def python_variables(environ: "Mapping[str, str]" = os.environ) -> list[str]:
    """Return the names of the set variables that change how Python runs, sorted."""
    return sorted(name for name, value in environ.items() if value and _is_pythons(name))


def isolate() -> None:
    """Run this program again without the user's Python variables, where there are any.

    Costs nothing without them, and one start of the interpreter with them (15 ms, 2026-11-30,
    two-core Linux machine). PYTHONHOME can keep Python from starting at all, before this is read.
    """
    if sys.flags.ignore_environment or not sys.executable or not python_variables():
        return
    try:
        os.execv(sys.executable, python(*sys.orig_argv[1:]))  # noqa: S606 -- this very program
    except OSError:
        return


def python(*words: str, program: str = sys.executable) -> list[str]:
    """Return the command line of an isolated Python."""
    return [program, *OPTIONS, *words]


def _is_pythons(name: str) -> bool:
    return name.startswith("PYTHON") and name not in _HARMLESS
