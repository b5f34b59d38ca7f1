"""Why a background server did not start, as one `StartFailedError`.

The reason comes from the server's own last error, else from its engine, else from the end of its
log.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pensieve.daemon.health_client import Health
from pensieve.errors import StartFailedError

LOG_LINES = 12
LOG_BYTES = 16384
# Exit codes that explain a failure (`pensieve help exit-codes`).
MODEL_DAMAGED = 65
TELLING_CODES = frozenset({MODEL_DAMAGED, 69, 73, 78})
# Precedes an error on the command line; the hint follows the error (cli/ui/output.py).
ERROR = "Error: "
OTHER_MODELS = "Choose another model:\n  pensieve models"
NEXT_STEPS = """\
Read its log, and check whether the model's files are complete:
  pensieve logs
  pensieve doctor --verify"""


@dataclass(frozen=True, slots=True)
class StartLog:
    file: Path
    start: int  # offset at which this start begins to write

    def failure_of_exit(self, code: int | None) -> StartFailedError:
        """Return the reason for the server's end; with `code` None, for not beginning to listen."""
        exit_code = code if code in TELLING_CODES else 1
        if code and code > 0 and (error := self._own_error()):
            message, _, hint = error.partition("\n")
            return StartFailedError(message, hint=hint or None, exit_code=exit_code)
        message = (
            "The server did not begin to listen in time."
            if code is None
            else f"The server ended while starting ({_describe_exit(code)})."
        )
        return StartFailedError(message, hint=self._ending(), exit_code=exit_code)

    def failure_of_health(self, health: Health, timeout_s: float) -> StartFailedError:
        """Return the reason why the running server answers no requests."""
        if health.status == "failed" and health.detail:
            exit_code = MODEL_DAMAGED if health.is_model_at_fault else 1
            hint = OTHER_MODELS if health.is_model_at_fault else NEXT_STEPS
            return StartFailedError(health.detail, hint=hint, exit_code=exit_code)
        if health.status == "failed":
            message = "The engine has failed without a reason."
        else:
            state = health.detail or health.status
            message = f"The server is not ready after {timeout_s:.0f} s ({state})."
        return StartFailedError(message, hint=self._ending())

    def log_tail(self) -> str:
        """Return the last log lines of this start."""
        with suppress(OSError), self.file.open("rb") as file:
            file.seek(max(self.start, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
            return "\n".join(line for line in lines[-LOG_LINES:] if line.strip())
        return ""

    def _own_error(self) -> str:
        """Return the error with which the command line ended, with its hint; empty without one."""
        _, marker, error = f"\n{self.log_tail()}".rpartition(f"\n{ERROR}")
        return error if marker else ""

    def _ending(self) -> str:
        quoted = "".join(f"\n  | {line}" for line in self.log_tail().splitlines())
        return f"Its log, {self.file}, ends:{quoted or ' (empty)'}"


def _describe_exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
