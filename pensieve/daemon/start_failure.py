"""Why a server in the background did not come up, told once: in its own last error, in its engine's
words, or, where neither says it, by the end of its log.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pensieve.daemon.health_client import Health
from pensieve.errors import StartFailedError

LOG_LINES = 12
LOG_BYTES = 16384
# What a command's exit code says by itself (`pensieve help exit-codes`).
MODEL_DAMAGED = 65
TELLING_CODES = frozenset({MODEL_DAMAGED, 69, 73, 78})
# What the command line writes before an error; the way out follows it (cli/ui/output.py).
ERROR = "Error: "
OTHER_MODELS = "Choose another model:\n  pensieve models"
NEXT_STEPS = """\
See what else its log says, and whether the model's files are whole:
  pensieve logs
  pensieve doctor --verify"""


@dataclass(frozen=True, slots=True)
class StartLog:
    """The server's log, from where this start began to write."""

    file: Path
    start: int

    def failure_of_exit(self, code: int | None) -> StartFailedError:
        """Return why the server ended, or (None) never began to listen."""
        exit_code = code if code in TELLING_CODES else 1
        if code and code > 0 and (said := self._own_error()):
            message, _, hint = said.partition("\n")
            return StartFailedError(message, hint=hint or None, exit_code=exit_code)
        message = (
            "The server did not begin to listen in time."
            if code is None
            else f"The server ended while starting ({_how(code)})."
        )
        return StartFailedError(message, hint=self._ending(), exit_code=exit_code)

    def failure_of_health(self, health: Health, patience_s: float) -> StartFailedError:
        """Return why the server, which runs, answers no requests."""
        if health.status == "failed" and health.detail:
            exit_code = MODEL_DAMAGED if health.is_model_at_fault else 1
            hint = OTHER_MODELS if health.is_model_at_fault else NEXT_STEPS
            return StartFailedError(health.detail, hint=hint, exit_code=exit_code)
        if health.status == "failed":
            message = "The engine has failed and gives no reason."
        else:
            state = health.detail or health.status
            message = f"The server is not ready after {patience_s:.0f} s ({state})."
        return StartFailedError(message, hint=self._ending())

    def log_tail(self) -> str:
        """Return the last lines of this start."""
        with suppress(OSError), self.file.open("rb") as file:
            file.seek(max(self.start, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
            return "\n".join(line for line in lines[-LOG_LINES:] if line.strip())
        return ""

    def _own_error(self) -> str:
        """Return the error with which the command line ended, and its way out; empty without one."""
        _, mark, said = f"\n{self.log_tail()}".rpartition(f"\n{ERROR}")
        return said if mark else ""

    def _ending(self) -> str:
        words = "".join(f"\n  | {line}" for line in self.log_tail().splitlines())
        return f"Its log, {self.file}, ends:{words or ' (empty)'}"


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
