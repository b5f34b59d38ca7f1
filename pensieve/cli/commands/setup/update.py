"""`pensieve update`: prints the update command; uses no network and changes nothing."""

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.installation import Keg, installation


def update() -> int:
    """Print the command that updates pensieve; change nothing.

    For example:
      pensieve update
    """
    output.data(f"This is pensieve {__version__}; it does not update itself. To update it:")
    installed = installation()
    output.data(f"  {installed.update_command()}")
    output.data(afterwards(installed.keg))
    return 0


def afterwards(keg: Keg | None) -> str:
    """Describe the effect on a running server: brew removes the program under it."""
    if keg:
        return (
            "A running server stops when brew removes the old program.\n"
            "A service restarts by itself; otherwise run:\n  pensieve start"
        )
    return "A running server keeps the old version until:\n  pensieve restart"
