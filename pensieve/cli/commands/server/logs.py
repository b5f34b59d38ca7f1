"""`pensieve logs`: prints the server's log, whether the server runs or not."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pensieve.cli.lifecycle.start_options import Allowed, whole_number
from pensieve.cli.ui import output
from pensieve.daemon.server_record import current, logs_of
from pensieve.errors import MachineError
from pensieve.installation import keg_of
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
        Parameter(name=("--lines", "-n"), metavar="N", converter=whole_number, validator=LINES),
    ] = 40,
) -> int:
    """Print the last lines of the server's log.

    For example:
      pensieve logs -f                       # until Ctrl-C
      pensieve logs -n 1000

    Parameters
    ----------
    follow_
        Print new lines as they are written, until Ctrl-C.
    lines
        Print this many of the last lines; the default is 40.
    """
    paths = settings_module.resolve_paths()
    record = current(paths)
    *_, log = [paths.server_log, *logs_of(paths, record, keg_of())]
    if record and not record.log:
        output.warning("the server logs to its terminal. This is the log of an earlier server:")
    try:
        _print(log, lines, is_following=follow_)
    except PermissionError as error:
        raise MachineError(
            f"{error.filename} cannot be read: it belongs to another user.",
            hint=f"Read it as that user:\n  sudo tail {shlex.quote(str(log))}",
        ) from error
    return 0


def _print(log: Path, lines: int, *, is_following: bool) -> None:
    output.hint(f"{log}:" if log.exists() else f"{log}: not written yet.")
    for line in last_lines(log, lines):
        output.data(one_line(line))
    if is_following:
        for line in follow(log):
            output.stream(f"{one_line(line)}\n")
