"""`pensieve update`: says how; it asks nobody and changes nothing."""

import sys
from pathlib import Path

from pensieve import __version__
from pensieve.cli import output


def update() -> int:
    """Say how pensieve is updated. Nothing is looked up or changed.

    For example:
      pensieve update
    """
    output.data(f"This is pensieve {__version__}; it does not update itself. To update it:")
    output.data(f"  {command(Path(sys.prefix))}")
    output.data("A server that runs stays as it is until:\n  pensieve restart")
    return 0


def command(prefix: Path) -> str:
    """By where it is installed: `prefix` is the folder of its Python environment."""
    if "Cellar" in prefix.parts:
        return "brew upgrade pensieve"
    return f"{prefix / 'bin' / 'python'} -m pip install --upgrade pensieve-llm"
