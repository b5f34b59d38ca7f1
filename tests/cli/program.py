"""Runs the real `pensieve` in a process and a home of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.clients.installed import nushell

ROOT = Path(__file__).parents[2]
OWN_KEY = "the-tests-own-key"
PROGRAM = [sys.executable, "-m", "pensieve"]


def environment(home: Path, **changes: str) -> dict[str, str]:
    """Only the variables that Python needs."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "PENSIEVE_HOME": str(home / "pensieve"),
        # The fake server has no record, so it needs a key other than the default one.
        **({"PENSIEVE_API_KEY": OWN_KEY} if "PENSIEVE_PORT" in changes else {}),
        **changes,
    }


def pensieve(
    *arguments: str, home: Path, stdin: bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end, with a pipe or nothing on standard input."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=home,
        env=environment(home, **variables),
        **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
    )


def at_terminal(*arguments: str, home: Path, **variables: str) -> "pexpect.spawn[str]":
    """Run one command on its own pseudo-terminal."""
    command, *options = PROGRAM
    return pexpect.spawn(
        command,
        [*options, *arguments],
        cwd=str(home),
        env=environment(home, TERM="xterm-256color", **variables),
        encoding="utf-8",
        timeout=30,
    )


def shell_program(name: str) -> str:
    """Return a shell of this machine, or nu from its npm package. Skips if unavailable."""
    found = shutil.which(name)
    if found is None and name == "nu":
        found = str(nushell() / "nu")
    if found is None:
        pytest.skip(f"no {name} here")
    return found
