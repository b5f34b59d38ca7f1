"""Preventing sleep, with `tail` in place of caffeinate: it also waits for a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.sleep_blocker import CAFFEINATE, SleepBlocker, awake, awake_command

# As `caffeinate -w PID`: waits for a process.
STAND_IN = ("tail", "--sleep-interval=0.05", "--follow", "/dev/null", "--pid")


def children_of(pid: int) -> set[int]:
    """Return the children of a process that have not ended.

    By parentage alone: Linux lets `Popen` return before a new program bears its name.
    """
    children: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if fields["PPid"] == str(pid) and fields["State"][0] != "Z":
            children.add(int(status.parent.name))
    return children


class OwnStandIns:
    """The children that this process has started since."""

    def __init__(self) -> None:
        self._before = children_of(os.getpid())

    def __call__(self) -> set[int]:
        return children_of(os.getpid()) - self._before


@pytest.fixture(name="own_stand_ins")
def _own_stand_ins() -> OwnStandIns:
    return OwnStandIns()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_one_child_runs_between_hold_and_release(own_stand_ins: OwnStandIns) -> None:
    with SleepBlocker(STAND_IN) as blocker:
        assert own_stand_ins() == set()
        blocker.hold()
        blocker.hold()
        assert len(own_stand_ins()) == 1
        blocker.release()
        blocker.release()
        assert own_stand_ins() == set()
        blocker.hold()
    assert own_stand_ins() == set()


def test_awake_ends_the_child_also_on_an_error(own_stand_ins: OwnStandIns) -> None:
    children: set[int] = set()

    def fail() -> None:
        children.update(own_stand_ins())
        raise KeyError

    with pytest.raises(KeyError), awake(STAND_IN):
        fail()
    assert len(children) == 1
    assert own_stand_ins() == set()


def test_a_missing_program_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with awake(("/no/such/program",)):
        assert "may sleep" in caplog.text


def test_the_child_ends_with_a_killed_process() -> None:
    code = (
        "from pensieve.sleep_blocker import SleepBlocker\n"
        "from tests.test_sleep_blocker import STAND_IN\n"
        "SleepBlocker(STAND_IN).hold()\n"
        "print(flush=True)\n"
        "input()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout
        child.stdout.readline()
        (stand_in,) = children_of(child.pid)
        child.kill()
    while _is_running(stand_in):
        pass


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("platform", "is_enabled", "command"),
    [("darwin", True, CAFFEINATE), ("darwin", False, ()), ("linux", True, ())],
)
def test_caffeinate_runs_only_on_macos_if_enabled_and_lets_the_display_sleep(
    platform: str, is_enabled: bool, command: tuple[str, ...]
) -> None:
    assert awake_command(is_enabled=is_enabled, platform=platform) == command
    assert "-d" not in command
