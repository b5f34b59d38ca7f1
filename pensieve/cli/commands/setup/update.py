"""`pensieve update`: prints the update command; uses no network and changes nothing."""

import shlex
import sys
from pathlib import Path

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.homebrew import Keg, keg_of


def update() -> int:
    """Print the command that updates pensieve; change nothing.

    For example:
      pensieve update
    """
    output.data(f"This is pensieve {__version__}; it does not update itself. To update it:")
    output.data(f"  {command(Path(sys.prefix))}")
    output.data(afterwards(keg_of()))
    return 0


def afterwards(keg: Keg | None) -> str:
    """Describe the effect on a running server: brew removes the program under it."""
    if keg:
        return (
            "A running server stops when brew removes the old program.\n"
            "A service restarts by itself; otherwise run:\n  pensieve start"
        )
    return "A running server keeps the old version until:\n  pensieve restart"


def command(prefix: Path) -> str:
    """Return the update command for the Python environment in the folder `prefix`."""
    if keg_of(prefix):
        return "brew upgrade pensieve"
    python = shlex.quote(str(prefix / "bin" / "python"))
    return f"{python} -m pip install --upgrade pensieve-llm"
