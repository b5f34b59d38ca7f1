"""`pensieve update`: says how; it asks nobody and changes nothing."""

import shlex
import sys
from pathlib import Path

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.homebrew import Keg, keg_of


def update() -> int:
    """Say how pensieve is updated. Nothing is looked up or changed.

    For example:
      pensieve update
    """
    output.data(f"This is pensieve {__version__}; it does not update itself. To update it:")
    output.data(f"  {command(Path(sys.prefix))}")
    output.data(afterwards(keg_of()))
    return 0


def afterwards(keg: Keg | None) -> str:
    """Say what becomes of a server that runs: it ends when brew removes the program that it runs from."""
    if keg:
        return (
            "A server that runs ends once brew has removed the old program.\n"
            "As a service it comes back by itself, otherwise with:\n  pensieve start"
        )
    return "A server that runs stays as it is until:\n  pensieve restart"


def command(prefix: Path) -> str:
    """By where it is installed: `prefix` is the folder of its Python environment."""
    if keg_of(prefix):
        return "brew upgrade pensieve"
    python = shlex.quote(str(prefix / "bin" / "python"))
    return f"{python} -m pip install --upgrade pensieve-llm"
