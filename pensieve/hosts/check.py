"""Examines other machines for `hosts check`, `start` and `doctor`: one report for each."""

import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import anyio
import anyio.to_thread

from pensieve import __version__
from pensieve.engine.client.launch import end_worker
from pensieve.errors import HostError, ProgramMissingError
from pensieve.hosts.greeting import TIMEOUT_S, Answer, Question
from pensieve.hosts.model_identity import identity_of, name_of
from pensieve.hosts.problems import failure_of, problem_of
from pensieve.hosts.ssh import SshFailedError, connect
from pensieve.models.catalog.find import find
from pensieve.models.catalog.sources import LocalModel
from pensieve.models.folder.snapshot import ModelFolder, folder_of
from pensieve.settings.resolve import Settings

GIB = 1024**3
ECHOES = 5
ECHO_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class HostReport:
    host: str
    answer: Answer | None  # None: none came
    problem: str = ""  # for people; empty if the model can run there
    fix: str = ""  # a command
    model: str = ""  # that is there; empty if it was not asked for
    link_s: float | None = None  # to the other machine's process and back

    @property
    def line(self) -> str:
        """Return what the machine is, or what is wrong, in a line."""
        if self.problem or self.answer is None:
            return self.problem
        answer = self.answer
        context = f"about {answer.context_tokens:,} tokens" if answer.context_tokens else ""
        parts = (
            f"{self.host}: pensieve {answer.version}",
            answer.chip or answer.device,
            f"{answer.memory_bytes / GIB:.0f} GiB of memory" if answer.memory_bytes else "",
            f"{self.model} is there" if self.model else "",
            context,
            f"answers in {self.link_s * 1000:.1f} ms" if self.link_s is not None else "",
        )
        return ", ".join(part for part in parts if part)

    @property
    def as_json(self) -> dict[str, Any]:
        answer = self.answer
        return {
            "host": self.host,
            "is_usable": not self.problem,
            "problem": self.problem or None,
            "fix": self.fix or None,
            "version": answer.version if answer else None,
            "system": (answer.system or None) if answer else None,
            "chip": (answer.chip or None) if answer else None,
            "memory_bytes": (answer.memory_bytes or None) if answer else None,
            "device": (answer.device or None) if answer else None,
            "context_tokens": answer.context_tokens if answer else None,
            "link_s": self.link_s,
        }

    def require(self) -> None:
        """Raise `HostError` if the model cannot run there."""
        if self.problem:
            raise HostError(self.problem, hint=f"Fix it:\n  {self.fix}")


def examine(
    hosts: Sequence[str], ssh: Sequence[str], question: Question, timeout_s: float = TIMEOUT_S
) -> list[HostReport]:
    """Examine all hosts at once. Raises OSError if ssh is not installed."""
    reports: dict[str, HostReport] = {}

    async def examine_one(host: str) -> None:
        reports[host] = await _examine(host, ssh, question, timeout_s)

    async def examine_all() -> None:
        async with anyio.create_task_group() as tasks:
            for host in hosts:
                tasks.start_soon(examine_one, host)

    try:
        anyio.run(examine_all)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [reports[host] for host in hosts]


def examined(hosts: Sequence[str], settings: Settings, model: ModelFolder) -> list[HostReport]:
    """Examine hosts by the settings' ssh. Raises `ProgramMissingError` if there is none.

    A model that is not on this machine is looked for there, and its files are not compared.
    """
    ranks = len(hosts) + 1 if settings.hostfile else 1
    files = identity_of(model.folder)
    question = Question(__version__, "check", name_of(model), files, ranks)
    ssh = shlex.split(settings.ssh_command)
    try:
        return examine(hosts, ssh, question)
    except OSError as error:
        raise ssh_missing(ssh, error) from error


def ssh_missing(ssh: Sequence[str], error: OSError) -> ProgramMissingError:
    return ProgramMissingError(
        f"{ssh[0]} does not start: {error.strerror}.",
        hint="Choose another one:\n  pensieve config set ssh_command COMMAND",
    )


def model_of(settings: Settings) -> ModelFolder:
    """Return the settings' model, whether it is here or not. Raises `ModelError`."""
    source = find(settings.model)
    folder = folder_of(source, settings.paths.models)
    repo = str(folder) if isinstance(source, LocalModel) else source.repo
    return ModelFolder(source.name, repo, folder)


async def _examine(
    host: str, ssh: Sequence[str], question: Question, timeout_s: float
) -> HostReport:
    try:
        process, connection, answer = await connect(ssh, host, question, timeout_s)
    except SshFailedError as failure:
        return HostReport(host, None, *failure_of(host, failure))
    with connection:
        problem = problem_of(host, question, answer)
        link_s = None if problem else await anyio.to_thread.run_sync(_link_s, connection)
    await end_worker(process)
    return HostReport(host, answer, *(problem or ("", "")), question.model, link_s)


def _link_s(connection: socket.socket) -> float | None:
    """Return the median time of a byte to the other machine and back; None if it is broken."""
    times: list[float] = []
    try:
        connection.settimeout(ECHO_TIMEOUT_S)
        for _ in range(ECHOES):
            began_s = time.monotonic()
            connection.sendall(b"\n")
            if not connection.recv(1):
                return None
            times.append(time.monotonic() - began_s)
    except OSError:
        return None
    return median(times)
