"""`pensieve logs`: what the server wrote, whether it runs or not."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pensieve.cli.lifecycle.start_options import Allowed
from pensieve.cli.ui import output
from pensieve.daemon.server_record import current, logs_of
from pensieve.errors import MachineError
from pensieve.homebrew import keg_of
from pensieve.logs import follow, last_lines
from pensieve.settings import resolve as settings_module
from pensieve.untrusted_text import one_line

MAX_LINES = 1_000_000
LINES = Allowed(f"a number from 0 to {MAX_LINES}, such as 100", range(MAX_LINES + 1).__contains__)


def logs(
    *,
    follow_: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    lines: Annotated[
        int,
        Parameter(name=("--lines", "-n"), metavar="N", validator=LINES),
    ] = 40,
) -> int:
    """Print the last lines of the server's log.

    For example:
      pensieve logs -f                       # goes on until Ctrl-C
      pensieve logs -n 1000

    Parameters
    ----------
    follow_
        Go on with what is written from now on, until Ctrl-C.
    lines
        How many of the last lines, 40 unless given.
    """
    paths = settings_module.resolve_paths()
    record = current(paths)
    *_, log = [paths.server_log, *logs_of(paths, record, keg_of())]
    if record and not record.log:
        output.warning("the server runs in a terminal and writes there. This is of an earlier one:")
    try:
        _print(log, lines, goes_on=follow_)
    except PermissionError as error:
        raise MachineError(
            f"{error.filename} cannot be read: it is another user's.",
            hint=f"Read it as that user:\n  sudo tail {shlex.quote(str(log))}",
        ) from error
    return 0


def _print(log: Path, lines: int, *, goes_on: bool) -> None:
    output.hint(f"{log}:" if log.exists() else f"{log}: not written yet.")
    for line in last_lines(log, lines):
        output.data(one_line(line))
    if goes_on:
        for line in follow(log):
            output.stream(f"{one_line(line)}\n")
