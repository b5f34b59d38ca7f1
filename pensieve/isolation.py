"""Keep the user's Python variables (PYTHONPATH, PYTHONOPTIMIZE, …) out of pensieve's processes.

Imported before everything else, so it imports only modules that the interpreter has loaded.
"""

import os
import sys

TYPE_CHECKING = False  # like typing.TYPE_CHECKING; `typing` is not loaded here
if TYPE_CHECKING:
    from collections.abc import Mapping

# -P: the working folder is not on the import path. Not -I, which hides a `pip install --user`.
OPTIONS = ("-E", "-P")
# Container images usually set these, and they change no result. Python does not read `PYTHON`.
_HARMLESS = {"PYTHON", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def python_variables(environ: "Mapping[str, str]" = os.environ) -> list[str]:
    """Return the sorted names of the set variables that change how Python runs."""
    return sorted(name for name, value in environ.items() if value and _is_pythons(name))


def isolate() -> None:
    """Replace this process by one without the user's Python variables, if any are set.

    Free without them; with them it costs one start of the interpreter (15 ms, 2026-11-30,
    two-core Linux machine). PYTHONHOME can keep Python from starting before this code runs.
    """
    if sys.flags.ignore_environment or not sys.executable or not python_variables():
        return
    try:
        os.execv(sys.executable, python(*sys.orig_argv[1:]))  # noqa: S606 -- this very program
    except OSError:
        return


def python(*arguments: str, program: str = sys.executable) -> list[str]:
    """Return the command line of an isolated Python."""
    return [program, *OPTIONS, *arguments]


def _is_pythons(name: str) -> bool:
    return name.startswith("PYTHON") and name not in _HARMLESS
