"""`make demo` stops the server that it started, however it ends."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.project import ROOT

FAKE = """#!/bin/sh
echo "$1" >>"$(dirname "$0")/../../calls"
case $1 in
    status) exit %(status)d ;;
    chat) %(chat)s ;;
esac
"""


@pytest.mark.parametrize(
    ("status", "chat", "code", "calls"),
    [
        (3, "exit 0", 0, ["status", "start", "chat", "stop"]),
        (3, "exit 1", 1, ["status", "start", "chat", "stop"]),
        (3, "kill -INT $PPID; exit 130", 130, ["status", "start", "chat", "stop"]),
        (3, "kill -TERM $PPID; exit 143", 143, ["status", "start", "chat", "stop"]),
        (0, "kill -INT $PPID; exit 130", 130, ["status", "chat"]),
    ],
)
def test_a_server_that_the_demo_started_is_stopped(
    tmp_path: Path, status: int, chat: str, code: int, calls: list[str]
) -> None:
    (tmp_path / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "demo.sh", tmp_path / "packaging")
    program = tmp_path / ".venv" / "bin" / "pensieve"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE % {"status": status, "chat": chat}, encoding="utf-8")
    program.chmod(0o755)
    command = ["sh", str(tmp_path / "packaging" / "demo.sh")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert done.returncode == code
    assert (tmp_path / "calls").read_text().split() == calls
