"""Runs the engine worker of one rank: rank 0 next to the front end, the others behind a wire.

`python -m pensieve.engine.ranks.rank SOCKET PLACE WIRE…` is rank 0; the others call `follow`.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from pensieve.engine.protocol import Load
from pensieve.engine.ranks.front_end import SharedFrontEnd
from pensieve.engine.ranks.place import RankPlace, loads
from pensieve.engine.ranks.wire import Follower, Lead, Peer, Progress, Wire
from pensieve.engine.worker.front_end import FrontEnd
from pensieve.engine.worker.worker import run

if TYPE_CHECKING:
    from pensieve.engine.worker.parts import EngineParts


def lead(front_end_fd: int, place: RankPlace, wire_fds: list[int]) -> NoReturn:
    """Run rank 0. wire_fds: sockets to the other ranks, in their order."""
    progress = Progress()
    for fd in wire_fds:
        os.set_inheritable(fd, False)  # noqa: FBT003
        os.set_blocking(fd, True)
    peers = [
        Peer(name, fd, os.dup(fd), progress)
        for name, fd in zip(place.names[1:], wire_fds, strict=True)
    ]
    own = FrontEnd(socket.socket(fileno=front_end_fd))
    wire = Lead(peers, progress)
    run(SharedFrontEnd(wire, progress, own), make_parts=lambda: _parts(wire, place))


def follow(into: int, out: int, place: RankPlace, localize: Callable[[Load], Load]) -> NoReturn:
    """Run another rank, whose wire comes from `into` and goes to `out`."""
    progress = Progress()
    wire = Follower(Peer(place.names[0], into, out, progress), progress)
    run(SharedFrontEnd(wire, progress), localize, lambda: _parts(wire, place))


def _parts(wire: Wire, place: RankPlace) -> "EngineParts":
    from pensieve.engine.ranks.shared import parts_of

    return parts_of(wire, place)


if __name__ == "__main__":
    lead(int(sys.argv[1]), loads(sys.argv[2]), list(map(int, sys.argv[3:])))
