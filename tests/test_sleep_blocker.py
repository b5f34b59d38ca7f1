"""A machine that is kept awake, with `tail` in caffeinate's place: it too waits for a process."""

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
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if fields["PPid"] == str(pid) and fields["State"][0] != "Z":
            found.add(int(status.parent.name))
    return found


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


def test_one_program_runs_while_it_is_held_and_none_after(own_stand_ins: OwnStandIns) -> None:
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


def test_a_block_is_awake_to_its_end_however_it_ends(own_stand_ins: OwnStandIns) -> None:
    seen: set[int] = set()

    def fail() -> None:
        seen.update(own_stand_ins())
        raise KeyError

    with pytest.raises(KeyError), awake(STAND_IN):
        fail()
    assert len(seen) == 1
    assert own_stand_ins() == set()


def test_a_program_that_is_not_there_hinders_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with awake(("/no/such/program",)):
        assert "may sleep" in caplog.text


def test_it_ends_with_a_process_that_is_killed() -> None:
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
    ("platform", "is_wanted", "command"),
    [("darwin", True, CAFFEINATE), ("darwin", False, ()), ("linux", True, ())],
)
def test_only_a_mac_that_may_not_sleep_runs_caffeinate_and_never_keeps_the_display_on(
    platform: str, is_wanted: bool, command: tuple[str, ...]
) -> None:
    assert awake_command(is_wanted=is_wanted, platform=platform) == command
    assert "-d" not in command
