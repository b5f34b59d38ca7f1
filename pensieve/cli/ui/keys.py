"""Reads single keys from the terminal, without echo and without waiting for Enter."""

import os
import select
import sys
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from pensieve.cli.ui import output

# Waits at most so many seconds for a key; empty if none was pressed.
ReadKey = Callable[[float], str]

# What is read once the terminal is closed.
END = "\x04"


@contextmanager
def single_keys() -> Generator[ReadKey]:
    """Yield a function that reads keys; put the terminal back at the end.

    Ctrl-C still raises KeyboardInterrupt. Ctrl-Z is off: it would leave the terminal as it is.
    """
    if not output.stdin_is_tty():
        yield _wait
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    changed = termios.tcgetattr(terminal)
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    off = bytes([os.fpathconf(terminal, "PC_VDISABLE") & 0xFF])  # 0 on Linux, 255 on macOS
    for name, value in ((termios.VMIN, 1), (termios.VTIME, 0), (termios.VSUSP, off)):
        changed[6][name] = value
    termios.tcsetattr(terminal, termios.TCSANOW, changed)
    try:
        yield lambda timeout_s: _read(terminal, timeout_s)
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _read(terminal: int, timeout_s: float) -> str:
    readable, _, _ = select.select([terminal], [], [], timeout_s)
    if not readable:
        return ""
    return os.read(terminal, 1).decode("latin-1") or END


def _wait(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""
