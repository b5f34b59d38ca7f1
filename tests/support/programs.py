"""Run programs from tests so that a failure shows what the program printed."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMEOUT_S = 600


class ProgramError(AssertionError):
    """A program failed or took too long; the message has its output."""


def run_program(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program and capture its text output. Raise `ProgramError` unless it exits with 0.

    options: those of `subprocess.run`.
    """
    options = {"timeout": TIMEOUT_S} | options
    line = shlex.join(map(str, command))
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except subprocess.TimeoutExpired as error:
        output = f"{error.stdout}\n{error.stderr}"
        raise ProgramError(f"{line}\nran longer than {error.timeout} s:\n{output}") from None
    if ended.returncode != 0:
        raise ProgramError(f"{line}\nexited with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended
