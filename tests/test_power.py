"""A machine that is kept awake, with `tail` in caffeinate's place: it too waits for a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.power import CAFFEINATE, SleepBlocker, awake, awake_command

# As `caffeinate -w PID`: waits for a process.
STAND_IN = ("tail", "--sleep-interval=0.05", "--follow", "/dev/null", "--pid")


def stand_ins_of(pid: int) -> list[int]:
    """Children of a process that run the stand-in and have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if fields["Name"] == "tail" and fields["PPid"] == str(pid) and fields["State"][0] != "Z":
            found.append(int(status.parent.name))
    return found


def own_stand_ins() -> list[int]:
    return stand_ins_of(int(Path("/proc/self").readlink().name))


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_one_program_runs_while_it_is_held_and_none_after() -> None:
    with SleepBlocker(STAND_IN) as blocker:
        assert own_stand_ins() == []
        blocker.hold()
        blocker.hold()
        assert len(own_stand_ins()) == 1
        blocker.release()
        blocker.release()
        assert own_stand_ins() == []
        blocker.hold()
    assert own_stand_ins() == []


def test_a_block_is_awake_to_its_end_however_it_ends() -> None:
    seen: list[int] = []

    def fail() -> None:
        seen.extend(own_stand_ins())
        raise KeyError

    with pytest.raises(KeyError), awake(STAND_IN):
        fail()
    assert len(seen) == 1
    assert own_stand_ins() == []


def test_a_program_that_is_not_there_hinders_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with awake(("/no/such/program",)):
        assert "may sleep" in caplog.text


def test_it_ends_with_a_process_that_is_killed() -> None:
    code = (
        "from pensieve.power import SleepBlocker\n"
        "from tests.test_power import STAND_IN\n"
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
        (stand_in,) = stand_ins_of(child.pid)
        child.kill()
    while Path(f"/proc/{stand_in}").exists() and "tail" in _name(stand_in):
        pass


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("platform", "is_wanted", "command"),
    [("darwin", True, CAFFEINATE), ("darwin", False, ()), ("linux", True, ())],
)
def test_only_a_mac_that_may_not_sleep_runs_caffeinate_and_never_keeps_the_display_on(
    platform: str, is_wanted: bool, command: tuple[str, ...]
) -> None:
    assert awake_command(is_wanted=is_wanted, platform=platform) == command
    assert "-d" not in command
