"""Keeps a Mac from sleeping while there is work, by a child process. Knows no engine.

Only idle sleep is held off: a display that is kept on (`caffeinate -d`) goes with GPU watchdog
panics (mlx#3267). Written from caffeinate(8), not run on a Mac.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

_log = logging.getLogger("pensieve")

# -i: no idle sleep. -w PID: while that process lives, so a server that is killed leaves none.
CAFFEINATE = ("/usr/bin/caffeinate", "-i", "-w")
TIMEOUT_S = 2.0


def awake_command(*, is_wanted: bool, platform: str = sys.platform) -> Sequence[str]:
    """Return the command that, given a process id, keeps this machine awake; empty for none."""
    return CAFFEINATE if is_wanted and platform == "darwin" else ()


class SleepBlocker:
    """Owns one child process while it is held, at most to its block's end. Empty command: none."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SleepBlocker":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """Start the child, unless it runs. Where that fails a warning is logged, and that is all."""
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
            _log.warning("this machine may sleep during work, caffeinate failed: %s", error)

    def release(self) -> None:
        """End the child, if it runs."""
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
    """Keep the machine awake while in the block."""
    with SleepBlocker(command) as blocker:
        blocker.hold()
        yield
