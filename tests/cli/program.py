"""Runs the real `pensieve` as a process of its own, in a home of its own."""

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
    """Nothing of the tester's own environment but the way to Python."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "PENSIEVE_HOME": str(home / "pensieve"),
        # The fake server of a test has no record: it is known by a key that is not the default one.
        **({"PENSIEVE_API_KEY": OWN_KEY} if "PENSIEVE_PORT" in changes else {}),
        **changes,
    }


def pensieve(
    *words: str, home: Path, stdin: bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """One command, run to its end, with a pipe or nothing at its standard input."""
    return subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=home,
        env=environment(home, **variables),
        **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
    )


def at_terminal(*words: str, home: Path, **variables: str) -> "pexpect.spawn[str]":
    """One command at a terminal of its own."""
    command, *options = PROGRAM
    return pexpect.spawn(
        command,
        [*options, *words],
        cwd=str(home),
        env=environment(home, TERM="xterm-256color", **variables),
        encoding="utf-8",
        timeout=30,
    )


def shell_program(name: str) -> str:
    """A shell of this machine, nu from its npm package where it is not installed. Skips where it cannot be had."""
    found = shutil.which(name)
    if found is None and name == "nu":
        found = str(nushell() / "nu")
    if found is None:
        pytest.skip(f"no {name} here")
    return found
