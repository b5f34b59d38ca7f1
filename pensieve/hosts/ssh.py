"""Starts `pensieve remote-worker` on another machine by ssh, with a socket as its connection.

ssh authenticates, encrypts, and notices within seconds that the other machine is gone; nothing else
listens on the network.
"""

import logging
import os
import shlex
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Thread

import anyio
import anyio.to_thread
from anyio.abc import Process

from pensieve.engine.client.launch import end_worker
from pensieve.hosts.greeting import (
    TIMEOUT_S,
    Answer,
    LateAnswerError,
    NoAnswerError,
    Question,
    ask,
)

_log = logging.getLogger("pensieve.hosts")

OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"),
    *("-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=2"),
    # What ~/.ssh/config forwards would listen here or there, or lend the other machine our keys.
    *("-a", "-x", "-o", "ClearAllForwardings=yes"),
)
# ssh runs it without a login shell, whose profile would add these folders. The shell stays, so that
# a killed worker has an exit code of its own; ssh's would be that of a lost connection.
_PATH = 'PATH="$PATH:/opt/homebrew/bin:/usr/local/bin:$HOME/.local/bin"; export PATH; pensieve'
# The user's own shell there may be another kind.
_SHELL = "/bin/sh -c"
# Of what ssh and the other machine print.
LOG_LINES = 50
MAX_LINE_CHARS = 2000
EXIT_S = 5.0


class SshFailedError(Exception):
    """No answer came by ssh."""

    def __init__(self, exit_code: int | None, lines: Sequence[str], reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code  # None: it was killed for its silence
        self.lines = lines  # that it printed


def command_line(ssh: Sequence[str], host: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs `pensieve ARGUMENTS` on `host`."""
    there = f"{_PATH} {shlex.join(arguments)}; exit $?"
    # After `--`, a host is never an option.
    return [*ssh, *OPTIONS, "--", host, f"{_SHELL} {shlex.quote(there)}"]


class Printed:
    """Reads what a process prints on standard error, in a thread, and passes on each line.

    on_end: called in the thread when the process has closed it, usually by its end.
    """

    def __init__(
        self,
        descriptor: int,
        on_line: Callable[[str], object],
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._on_end = on_end
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """Return the last lines, after the process has ended."""
        self._thread.join(1.0)
        return list(self._lines)

    def _read(self) -> None:
        with os.fdopen(self._descriptor, errors="replace") as stream:
            for line in iter(lambda: stream.readline(MAX_LINE_CHARS), ""):
                if text := line.rstrip():
                    self._lines.append(text)
                    self._on_line(text)
        self._on_end()


async def connect(
    ssh: Sequence[str],
    host: str,
    question: Question,
    timeout_s: float = TIMEOUT_S,
    on_end: Callable[[], object] = lambda: None,
) -> tuple[Process, socket.socket, Answer]:
    """Start the remote worker; return ssh's process, the connection, and the answer.

    on_end: called in a thread when ssh has ended. Raises OSError if ssh does not start, and
    `SshFailedError`.
    """
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with theirs, ExitStack() as on_failure:
        on_failure.callback(ours.close)
        printed = Printed(reading, lambda line: _log.info("%s: %s", host, line), on_end)
        try:
            process = await anyio.open_process(
                command_line(ssh, host, ["remote-worker"]),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=writing,
            )
        finally:
            os.close(writing)
        theirs.close()
        try:
            answer = await anyio.to_thread.run_sync(
                ask, ours, question, timeout_s, abandon_on_cancel=True
            )
        except NoAnswerError as error:
            raise await _failure(process, printed, error) from error
        except anyio.get_cancelled_exc_class():
            process.kill()
            raise
        on_failure.pop_all()
    return process, ours, answer


async def _failure(process: Process, printed: Printed, error: NoAnswerError) -> SshFailedError:
    if not isinstance(error, LateAnswerError):
        with anyio.move_on_after(EXIT_S):
            await process.wait()
    code = process.returncode
    await end_worker(process)
    return SshFailedError(code, await anyio.to_thread.run_sync(printed.lines), str(error))
