"""Opens one model over several machines: rank 0 here, a rank on each other host of a hostfile."""

import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from anyio import to_thread
from anyio.abc import Process

from pensieve import __version__
from pensieve.engine.client.launch import WorkerSpec, end_worker, open_worker
from pensieve.engine.planning.hostfile import (
    FIRST_PORT,
    MAX_HOSTS,
    Hostfile,
    choose_backend,
    read_hostfile,
    rendezvous_of,
)
from pensieve.engine.ranks.place import RankPlace
from pensieve.errors import HostError, SettingsError
from pensieve.hosts.backends import own_backends
from pensieve.hosts.greeting import Answer, Question
from pensieve.hosts.model_identity import identity_of
from pensieve.hosts.problems import failure_of, problem_of
from pensieve.hosts.ssh import SshFailedError, connect
from pensieve.settings.resolve import LOCAL

LEAD = ("-m", "pensieve.engine.ranks.rank")
# For rank 0 to notice that a connection has ended.
GRACE_S = 2.0
# Of ports: those that an ended group used cannot be used again at once. Below 32768, from which on
# Linux gives ports to connections; macOS does from 49152 on.
_PORT_BLOCKS = 1000


def hosts_of(file: Path) -> Hostfile:
    """Read a hostfile whose first host is this machine. Raises `SettingsError`."""
    hostfile = read_hostfile(file)
    first, *others = (host.ssh for host in hostfile.hosts)
    if first.removesuffix(".local") not in {LOCAL, socket.gethostname().removesuffix(".local")}:
        raise SettingsError(
            f"The first host in {file} is {first}, which is no name of this machine.",
            hint=f'Put this machine first:\n  {{"ssh": "{LOCAL}", "ips": […]}}',
        )
    if not others:
        raise SettingsError(
            f"{file} names this machine alone, and a model is split over several.",
            hint="Add the others, or start without --hostfile.",
        )
    if len(set(others)) < len(others) or LOCAL in others:
        raise SettingsError(
            f"{file} must name this machine, and each other one once.",
            hint="The format is that of mlx.launch; docs/several-macs.md",
        )
    return hostfile


class LeadWatch:
    """Ends rank 0 if it does not notice that the connection to another rank has ended: it hangs."""

    def __init__(self) -> None:
        self.lead: Process | None = None

    def note_ended(self) -> None:
        """Wait for rank 0 to end by itself. Called in a thread."""
        time.sleep(GRACE_S)
        if self.lead is not None and self.lead.returncode is None:
            with suppress(ProcessLookupError):
                self.lead.kill()


class GroupProcess(Process):
    """Rank 0's process; its end is the end of the ssh that reach the others."""

    def __init__(self, lead: Process, connections: Sequence[Process]) -> None:
        self._lead = lead
        self._connections = connections

    async def wait(self) -> int:
        return await self._lead.wait()

    def terminate(self) -> None:
        self._lead.terminate()

    def kill(self) -> None:
        self._lead.kill()

    def send_signal(self, signal: Any) -> None:
        self._lead.send_signal(signal)

    @property
    def pid(self) -> int:
        return self._lead.pid

    @property
    def returncode(self) -> int | None:
        return self._lead.returncode

    @property
    def stdin(self) -> Any:
        return self._lead.stdin

    @property
    def stdout(self) -> Any:
        return self._lead.stdout

    @property
    def stderr(self) -> Any:
        return self._lead.stderr

    async def aclose(self) -> None:
        await self._lead.aclose()
        for each in self._connections:
            await end_worker(each)


def opener(
    ssh: Sequence[str],
    hostfile: Hostfile,
    model: str,
    backends: Callable[[], Sequence[str]] = own_backends,
) -> Callable[[WorkerSpec], Awaitable[tuple[Process, socket.socket]]]:
    """Return a function that starts all ranks of `model`.

    It raises OSError if ssh is not installed, `HostError`, and `SettingsError` if the machines have
    no back end in common.
    """

    async def open_all(spec: WorkerSpec) -> tuple[Process, socket.socket]:
        files = await to_thread.run_sync(identity_of, spec.model_folder)
        question = Question(__version__, "rank", model, files, len(hostfile.hosts))
        connections: list[Process] = []
        watch = LeadWatch()
        with ExitStack() as stack:
            try:
                found = [await to_thread.run_sync(backends)]
                wires: list[socket.socket] = []
                for host in hostfile.hosts[1:]:
                    opened = _connected(ssh, host.ssh, question, watch.note_ended)
                    process, wire, answer = await opened
                    connections.append(process)
                    wires.append(stack.enter_context(wire))
                    found.append(answer.backends)
                place = _place(hostfile, found)
                for rank, wire in enumerate(wires, 1):
                    wire.setblocking(True)  # noqa: FBT003
                    wire.sendall(place.of(rank).dumps().encode() + b"\n")
                watch.lead, connection = await open_worker(
                    spec, LEAD, [place.dumps()], [wire.fileno() for wire in wires]
                )
            except BaseException:
                for process in connections:
                    await end_worker(process)
                raise
        return GroupProcess(watch.lead, connections), connection

    return open_all


async def _connected(
    ssh: Sequence[str], host: str, question: Question, on_end: Callable[[], object]
) -> tuple[Process, socket.socket, Answer]:
    try:
        process, wire, answer = await connect(ssh, host, question, on_end=on_end)
    except SshFailedError as failure:
        problem, fix = failure_of(host, failure)
        raise HostError(problem, hint=f"Fix it:\n  {fix}") from failure
    if problem := problem_of(host, question, answer):
        wire.close()
        await end_worker(process)
        raise HostError(problem[0], hint=f"Fix it:\n  {problem[1]}")
    return process, wire, answer


def _place(hostfile: Hostfile, backends: Sequence[Sequence[str]]) -> RankPlace:
    backend = choose_backend(hostfile, backends)
    port = FIRST_PORT - MAX_HOSTS * random.randint(1, _PORT_BLOCKS)  # noqa: S311
    names = tuple(host.ssh for host in hostfile.hosts)
    return RankPlace(0, names, rendezvous_of(hostfile, backend, port))
