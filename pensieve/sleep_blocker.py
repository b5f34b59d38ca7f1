"""Keep a Mac from sleeping during work, by a child process. Knows no engine.

Only idle sleep is prevented: a display that stays on (`caffeinate -d`) correlates with GPU watchdog
panics (mlx#3267). Written from caffeinate(8), not run on a Mac.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

_log = logging.getLogger("pensieve")

# -i: no idle sleep. -w PID: end with that process, so that a killed server leaves no child.
CAFFEINATE = ("/usr/bin/caffeinate", "-i", "-w")
TIMEOUT_S = 2.0


def awake_command(*, is_enabled: bool, platform: str = sys.platform) -> Sequence[str]:
    """Return the command that, with a process id appended, prevents sleep; empty for none."""
    return CAFFEINATE if is_enabled and platform == "darwin" else ()


class SleepBlocker:
    """Owns one child process between `hold` and `release`. An empty command starts none."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SleepBlocker":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """Start the child unless it runs already. A failure is only logged."""
        if not self._command or (self._child and self._child.poll() is None):
            return
        try:
            self._child = subprocess.Popen(  # noqa: S603 - a fixed command
                [*self._command, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            _log.warning("caffeinate failed, this machine may sleep during work: %s", error)

    def release(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def awake(command: Sequence[str]) -> Generator[None]:
    with SleepBlocker(command) as blocker:
        blocker.hold()
        yield
