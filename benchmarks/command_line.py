"""What the commands cost that a shell's start, a prompt or a status line runs: CPU time, against an interpreter that does nothing.

usage: python -m benchmarks.command_line [--rounds N]

User and system time of the whole process, beside `python -c pass` of the same interpreter in the same run, in turns; medians. Read the
ratios: they are to be 8 at most. Each command is run in an empty home, and again beside a server that answers.
"""

# pyright: basic

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.paths import under_home
from tests.cli.fake_server import serving
from tests.cli.program import PROGRAM, environment

NOTHING = "python -c pass"
COMMANDS = ("--help", "--version", "env", "status")
WITH_SERVER = ("env", "status")


def cpu_ms(command: list[str], home: Path) -> float:
    """User and system time of one run. Compiled files are there from the run before."""
    process = subprocess.Popen(
        command,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (used.ru_utime + used.ru_stime) * 1000


def medians(commands: dict[str, list[str]], home: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of each, taken in turns so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            took_ms = cpu_ms(command, home)
            if number:  # the first run compiles
                times[name].append(took_ms)
    return {name: statistics.median(each) for name, each in times.items()}


@contextmanager
def answering_server(home: Path) -> Iterator[None]:
    """A server of this home, as far as these commands can tell."""
    paths = under_home(home / "pensieve")
    with serving() as server, server_lock.acquire(paths):
        record = own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
        with publish(paths, record):
            yield


def table(measured: dict[str, float]) -> str:
    """Markdown, in the order of running."""
    least = measured[NOTHING]
    rows = [f"| {name} | {ms:.1f} ms | {ms / least:.1f} |" for name, ms in measured.items()]
    return "\n".join(["| | CPU time | ratio |", "|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    nothing = {NOTHING: [sys.executable, "-c", "pass"]}
    alone = nothing | {f"pensieve {word}": [*PROGRAM, word] for word in COMMANDS}
    beside = nothing | {
        f"pensieve {word}, of a server that answers": [*PROGRAM, word] for word in WITH_SERVER
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        measured = medians(alone, home, rounds)
        with answering_server(home):
            found = medians(beside, home, rounds)
    # The second run has its own interpreter that does nothing; its ratios are what counts.
    scale = measured[NOTHING] / found.pop(NOTHING)
    measured |= {name: ms * scale for name, ms in found.items()}
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}\n"
    )
    print(table(measured))


if __name__ == "__main__":
    main()
