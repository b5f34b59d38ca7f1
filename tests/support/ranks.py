"""Ranks of one model as processes of this machine, with sockets in place of ssh."""

import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio
from anyio.abc import Process

from pensieve.engine.client.launch import OpenWorker, WorkerSpec, worker_variables
from pensieve.engine.generation import ResourceLimits
from pensieve.engine.planning.hostfile import Rendezvous
from pensieve.engine.ranks.place import RankPlace
from pensieve.hosts.ranks import GroupProcess
from tests.support.ports import free_port

LEAD = ("-m", "pensieve.engine.ranks.rank")
FOLLOWER = ("-m", "pensieve.hosts.worker_process")


@dataclass
class Group:
    """Opens a worker that is rank 0 of `ranks`, and its followers."""

    ranks: int
    folder: Path  # for the prefixes of each rank
    followers: list[Process] = field(default_factory=list[Process])
    lead: Process | None = None
    limits: Sequence[ResourceLimits] = ()  # of the followers; none: as rank 0's

    def prefixes(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}"

    @property
    def opener(self) -> OpenWorker:
        return self._open

    async def _open(self, spec: WorkerSpec) -> tuple[Process, socket.socket]:
        addresses = tuple((f"127.0.0.1:{free_port()}",) for _ in range(self.ranks))
        names = tuple(f"mac-{rank}" for rank in range(self.ranks))
        place = RankPlace(0, names, Rendezvous("ring", addresses))
        with ExitStack() as stack:
            wires: list[int] = []
            self.followers = []
            for rank in range(1, self.ranks):
                ours, theirs = (stack.enter_context(each) for each in socket.socketpair())
                wires.append(ours.fileno())
                self.followers.append(await self._follower(rank, theirs.fileno(), place, spec))
            own, theirs = socket.socketpair()
            stack.enter_context(theirs)
            arguments = (*LEAD, str(theirs.fileno()), place.dumps(), *map(str, wires))
            self.lead = await _start(arguments, [theirs.fileno(), *wires])
        return GroupProcess(self.lead, self.followers), own

    async def _follower(self, rank: int, fd: int, place: RankPlace, spec: WorkerSpec) -> Process:
        limits = self.limits[rank - 1] if self.limits else spec.limits
        changes = {
            "model_folder": str(spec.model_folder),
            "prefix_folder": str(self.prefixes(rank)) if spec.prefix_folder else None,
            "limits": asdict(limits),
        }
        arguments = (str(fd), str(fd), json.dumps(changes), place.of(rank).dumps())
        return await _start((*FOLLOWER, *arguments), [fd])


async def _start(arguments: Sequence[str], fds: Sequence[int]) -> Process:
    return await anyio.open_process(
        [sys.executable, *arguments],
        stdin=None,
        stdout=None,
        stderr=None,
        env=os.environ | worker_variables("cpu"),
        pass_fds=fds,
    )
