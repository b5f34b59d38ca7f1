"""CPU time of short commands, in ms and as a ratio to `python -c pass`.

usage: python -m benchmarks.command_line [--rounds N]
The commands are those that a shell's start, a prompt or a status line runs. Measured is the user
and system time of the whole process; medians of runs in turns with the empty interpreter. Compare
the ratios, whose target is 8 at most. Each command runs in an empty home and with a running server.
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

BASELINE = "python -c pass"
COMMANDS = ("--help", "--version", "env", "status")
WITH_SERVER = ("env", "status")


def cpu_ms(command: list[str], home: Path) -> float:
    """Return the user and system time of one run."""
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
    """Return the median milliseconds of commands that run in turns."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            duration_ms = cpu_ms(command, home)
            if number:  # the first run compiles
                times[name].append(duration_ms)
    return {name: statistics.median(each) for name, each in times.items()}


@contextmanager
def running_server(home: Path) -> Iterator[None]:
    """Run a fake server that these commands take for that of this home."""
    paths = under_home(home / "pensieve")
    with serving() as server, server_lock.acquire(paths):
        record = own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
        with publish(paths, record):
            yield


def table(measured: dict[str, float]) -> str:
    baseline = measured[BASELINE]
    rows = [f"| {name} | {ms:.1f} ms | {ms / baseline:.1f} |" for name, ms in measured.items()]
    return "\n".join(["| | CPU time | ratio |", "|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    baseline = {BASELINE: [sys.executable, "-c", "pass"]}
    without_server = baseline | {f"pensieve {command}": [*PROGRAM, command] for command in COMMANDS}
    with_server = baseline | {
        f"pensieve {command}, with a server": [*PROGRAM, command] for command in WITH_SERVER
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        measured = medians(without_server, home, rounds)
        with running_server(home):
            more = medians(with_server, home, rounds)
    # The second run has its own baseline: keep its ratios.
    scale = measured[BASELINE] / more.pop(BASELINE)
    measured |= {name: ms * scale for name, ms in more.items()}
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}\n"
    )
    print(table(measured))


if __name__ == "__main__":
    main()
