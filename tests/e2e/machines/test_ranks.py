"""One model over two machines: this one, and sshd on loopback with a home of its own."""

import json
import logging
import os
import random
import shlex
import signal
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from threading import Timer

import httpx
import pytest

from tests.e2e.installation import KEY, Installation, health
from tests.e2e.machines.conftest import TinyInstallation, installations
from tests.support.sshd import Sshd, running_sshd

# The full run, with the seconds until the others have ended: PENSIEVE_KILLS=50 pytest
# --log-cli-level=INFO tests/e2e/machines/test_ranks.py
KILLS = int(os.environ.get("PENSIEVE_KILLS", "2"))
VICTIMS = (
    ("lead", signal.SIGKILL),
    ("follower", signal.SIGSTOP),
    ("connection", signal.SIGKILL),
    ("follower", signal.SIGKILL),
    ("connection", signal.SIGSTOP),
    ("lead", signal.SIGSTOP),
)
GONE_S = 70.0
BODY = {
    "model": "tiny",
    "max_tokens": 40,
    "temperature": 0,
    "messages": [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 6}],
}


_log = logging.getLogger(__name__)


class Machines:
    def __init__(self, here: TinyInstallation, there: Installation, sshd: Sshd) -> None:
        self.here, self.there, self.sshd = here, there, sshd

    def start(self, *options: str, check: bool = True) -> str:
        done = self.here.start(*options, check=check)
        return done.stdout + done.stderr

    def ask(self, **changes: object) -> httpx.Response:
        return httpx.post(
            f"{self.here.base_url}/v1/chat/completions",
            json=BODY | changes,
            headers={"x-api-key": KEY},
            timeout=60,
        )

    def answer(self, **changes: object) -> str:
        """Return an answer, asked for again while the ranks are started again."""
        for _ in range(200):
            with suppress(httpx.HTTPError):
                response = self.ask(**changes)
                if response.status_code == 200:
                    return response.json()["choices"][0]["message"]["content"]
            time.sleep(0.3)
        raise AssertionError(health(self.here))

    def processes(self, home: Path, program: str) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes()
                if (
                    f"PENSIEVE_HOME={home}\0".encode() in environment
                    and program.encode() in command
                ):
                    found.append(int(folder.name))
        return found

    @property
    def lead(self) -> list[int]:
        return self.processes(self.here.home, "pensieve.engine.ranks.rank")

    @property
    def followers(self) -> list[int]:
        return self.processes(self.there.home, "pensieve.hosts.worker_process")

    @property
    def connections(self) -> list[int]:
        return self.processes(self.here.home, "remote-worker")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Generator[Machines]:
    base = tmp_path_factory.mktemp("ranks")
    here, there = installations(base, tiny_folder, ["here", "there"])
    variables = {"PENSIEVE_HOME": str(there.home), "PENSIEVE_DEVICE": "cpu"}
    with running_sshd(base / "ssh", variables) as sshd:
        here.pensieve("config", "set", "ssh_command", shlex.join(sshd.command))
        yield Machines(here, there, sshd)
        here.pensieve("stop", "--force")


@pytest.fixture(scope="module")
def hostfile(machines: Machines) -> Path:
    file = machines.here.home / "two.json"
    names = ("localhost", "mac-b")
    hosts = [{"ssh": name, "ips": ["127.0.0.1"]} for name in names]
    file.write_text(json.dumps({"hosts": hosts}))
    return file


def test_two_machines_answer_as_one_does(machines: Machines, hostfile: Path) -> None:
    machines.start()
    seeded = {"temperature": 1.0, "seed": 7, "max_tokens": 100}
    alone = [machines.answer(), machines.answer(**seeded)]
    machines.here.pensieve("stop")
    printed = machines.start("--hostfile", str(hostfile))
    assert "mac-b: pensieve" in printed
    assert "One model over 2 machines by TCP (ring)" in printed
    assert [machines.answer(), machines.answer(**seeded)] == alone
    assert len(alone[0]) > 20
    assert (len(machines.lead), len(machines.followers)) == (1, 1)
    ranks = health(machines.here)["ranks"]
    assert [each["host"] for each in ranks] == ["localhost", "mac-b"]
    assert "localhost,mac-b, one model, by ssh" in machines.here.pensieve("status").stdout


@pytest.mark.parametrize("number", range(KILLS))
def test_after_the_end_of_a_rank_all_start_again(machines: Machines, number: int) -> None:
    chance = random.Random(number)
    name, number_of_signal = VICTIMS[number % len(VICTIMS)]
    processes = {
        "lead": machines.lead,
        "follower": machines.followers,
        "connection": machines.connections,
    }
    (victim,) = processes[name]
    before = {*machines.lead, *machines.followers}
    before_answer = machines.answer()
    signalled: list[float] = []

    def signal_victim() -> None:
        signalled.append(time.monotonic())
        os.kill(victim, number_of_signal)

    killer = Timer(chance.uniform(0.0, 0.5), signal_victim)
    killer.start()
    with suppress(httpx.HTTPError):
        for _ in range(20):
            if machines.ask(max_tokens=200).status_code != 200:
                break
    killer.join()
    others = before - {victim}
    until_s = signalled[0] + GONE_S
    while others & {*machines.lead, *machines.followers} and time.monotonic() < until_s:
        time.sleep(0.02)
    noticed_s = time.monotonic() - signalled[0]
    _log.info("%s %s: the others end after %.1f s", name, number_of_signal.name, noticed_s)
    if number_of_signal is signal.SIGSTOP:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)
    assert machines.answer() == before_answer
    assert not before & {*machines.lead, *machines.followers}
    if number % 3 == 2:  # as many deaths in a minute are a crash loop
        machines.here.pensieve("restart")


def test_nothing_stays_after_a_killed_server(machines: Machines) -> None:
    machines.answer()
    pid = health(machines.here)["pid"]
    os.kill(pid, signal.SIGKILL)
    until_s = time.monotonic() + GONE_S
    while (machines.lead or machines.followers or machines.connections) and (
        time.monotonic() < until_s
    ):
        time.sleep(0.05)
    assert machines.lead == machines.followers == machines.connections == []


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["localhost", "mac-b", "mac-c"], "3"),
        (["mac-b", "localhost"], "The first host"),
        (["localhost"], "names this machine alone"),
        (["localhost", "mac-b", "mac-b"], "each other one once"),
    ],
)
def test_what_cannot_share_a_model_is_refused_before_the_start(
    machines: Machines, tmp_path: Path, hosts: list[str], expected: str
) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"hosts": [{"ssh": each, "ips": ["127.0.0.1"]} for each in hosts]}))
    assert expected in machines.start("--hostfile", str(file), check=False)
