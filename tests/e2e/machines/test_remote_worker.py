"""The model runs on another machine: sshd on loopback, with an own home there."""

import os
import random
import shlex
import signal
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import product
from pathlib import Path

import anthropic
import pytest

from tests.e2e.installation import KEY, Installation, health
from tests.e2e.machines.conftest import TinyInstallation, installations
from tests.support.sshd import Sshd, running_sshd

# The full run: PENSIEVE_KILLS=50 pytest tests/e2e/machines/test_remote_worker.py
KILLS = int(os.environ.get("PENSIEVE_KILLS", "1"))
BUSY = list(product(("loading", "answering"), ("server", "ssh", "connection")))
GONE_S = 20.0
START_S = 60.0
MODEL = "tiny"
PROMPT = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 6}]


class Machines:
    """The front end's machine, and the other one with its processes."""

    def __init__(self, here: TinyInstallation, there: Installation, sshd: Sshd) -> None:
        self.here, self.there, self.sshd = here, there, sshd

    def processes(self, program: str) -> list[int]:
        """Return the processes of a program that ssh started on the other machine."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if f"PENSIEVE_HOME={self.there.home}".encode() in environment and (
                program.encode() in command
            ):
                found.append(int(folder.name))
        return found

    @property
    def workers(self) -> list[int]:
        return self.processes("pensieve.hosts.worker_process")

    def client(self, retries: int = 8) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.here.base_url, api_key=KEY, max_retries=retries)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Generator[Machines]:
    base = tmp_path_factory.mktemp("remote")
    here, there = installations(base, tiny_folder, ["front end", "other_machine"])
    variables = {"PENSIEVE_HOME": str(there.home), "PENSIEVE_DEVICE": "cpu"}
    with running_sshd(base / "ssh", variables) as sshd:
        here.pensieve("config", "set", "ssh_command", shlex.join(sshd.command))
        yield Machines(here, there, sshd)
        here.pensieve("stop")


def text(client: anthropic.Anthropic) -> str:
    message = client.messages.create(
        model=MODEL, max_tokens=24, messages=PROMPT, extra_body={"temperature": 0}
    )
    return message.content[0].text


def test_answers_from_another_machine_are_those_of_this_one(machines: Machines) -> None:
    machines.here.start()
    with machines.client() as client:
        own = text(client)
    machines.here.pensieve("stop")
    started = machines.here.start("--hosts", "mac-b")
    assert f"mac-b: pensieve {health(machines.here)['version']}, cpu" in started.stderr
    assert f"{machines.here.folder} is there, answers in" in started.stderr
    assert health(machines.here)["host"] == "mac-b"
    assert len(machines.workers) == 1
    with machines.client() as client:
        assert text(client) == own
    assert (machines.there.home / "prefixes").is_dir()
    assert "device       mac-b, by ssh" in machines.here.pensieve("status").stdout


@pytest.mark.parametrize("number", range(KILLS))
def test_a_broken_connection_is_a_dead_worker_that_is_replaced(
    machines: Machines, number: int
) -> None:
    chance = random.Random(number)
    (worker,) = machines.workers
    connection = parent_of(parent_of(worker))  # sshd's process, of the shell's
    victim = (connection, worker, ssh_of(machines.here))[number % 3]
    with machines.client(0) as client:
        killer = threading.Timer(chance.uniform(0.0, 0.6), os.kill, (victim, signal.SIGKILL))
        killer.start()
        with pytest.raises(anthropic.APIError):
            ask_often(client)
        killer.join()
    with machines.client() as client:
        assert text(client)
    assert len(machines.workers) == 1
    if number % 3 == 2:  # as many deaths in a minute are a crash loop
        machines.here.pensieve("restart")


def ask_often(client: anthropic.Anthropic) -> None:
    for _ in range(50):
        client.messages.create(model=MODEL, max_tokens=60, messages=PROMPT)


def parent_of(pid: int) -> int:
    fields = status_of(Path(f"/proc/{pid}"))
    return int(fields["PPid"])


def ssh_of(server: Installation) -> int:
    """Return the front end's ssh, which it takes for the worker."""
    parent = str(health(server)["pid"])
    for folder in Path("/proc").glob("[0-9]*"):
        fields = status_of(folder)
        if fields.get("PPid") == parent and fields.get("Name") == "ssh":
            return int(folder.name)
    raise AssertionError("no ssh")


def status_of(process: Path) -> dict[str, str]:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_no_process_is_left_on_the_other_machine_after_a_kill_of_the_server(
    machines: Machines,
) -> None:
    assert machines.workers
    os.kill(health(machines.here)["pid"], signal.SIGKILL)
    until_s = time.monotonic() + GONE_S
    while machines.workers and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not machines.workers


@pytest.mark.parametrize(("moment", "victim"), BUSY if KILLS > 1 else BUSY[:1])
def test_worker_ends_with_its_connection_also_while_it_is_busy(
    machines: Machines, moment: str, victim: str
) -> None:
    machines.here.pensieve("stop")
    machines.here.start("--hosts", "mac-b", *(["--no-wait"] if moment == "loading" else []))
    until_s = time.monotonic() + START_S
    while not machines.workers and time.monotonic() < until_s:
        time.sleep(0.01)
    (worker,) = machines.workers
    if moment == "answering":
        threading.Thread(target=ask_for_much, args=(machines,), daemon=True).start()
        while not health(machines.here)["in_flight"] and time.monotonic() < until_s:
            time.sleep(0.01)
    match victim:
        case "server":
            pid = health(machines.here)["pid"]
        case "ssh":
            pid = ssh_of(machines.here)
        case _:
            pid = parent_of(parent_of(worker))  # sshd's process, of the shell's
    os.kill(pid, signal.SIGKILL)
    began_s = time.monotonic()
    while Path(f"/proc/{worker}").exists() and time.monotonic() < began_s + GONE_S:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists()


def ask_for_much(machines: Machines) -> None:
    with machines.client(0) as client, suppress(anthropic.APIError):
        client.messages.create(model=MODEL, max_tokens=7000, messages=PROMPT)
