# pyright: basic
"""Joins this process to the ranks of one model through `mx.distributed`.

MLX takes where the ranks meet from environment variables, which may be set in the process itself
(docs: "Distributed Without mlx.launch"). Its back ends, by their sources of 0.32.4: `ring` is TCP,
`jaccl` RDMA over Thunderbolt 5, `nccl` between NVIDIA GPUs. Only `ring` was run with this code;
no machine with jaccl, and none with two NVIDIA GPUs, was at hand.
"""

import json
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.planning.hostfile import Rendezvous
from pensieve.settings.resolve import environment_restored

# A rank that is not met within this time ends by SIGALRM: MLX waits for ever in accept(2), and
# holds the GIL there, so that no thread of this process could end it.
TIMEOUT_S = 60


def join(
    rendezvous: Rendezvous,
    rank: int,
    timeout_s: int = TIMEOUT_S,
    init: Callable[..., Any] = mx.distributed.init,
) -> Any:
    """Return the group of all ranks, once they have met.

    Called once in a process, on its main thread: MLX keeps the group. Raises RuntimeError for what
    MLX reports, such as a back end that it was built without; the process ends with SIGALRM after
    `timeout_s`.
    """
    with TemporaryDirectory() as folder:
        variables = _variables(rendezvous, rank, Path(folder))
        with environment_restored(variables), _alarm(timeout_s):
            name = rendezvous.backend.removesuffix("-ring")
            return init(strict=True, backend=name)


def available_backends() -> list[str]:
    """Return the back ends that this machine's MLX can use."""
    return [name for name in ("jaccl", "nccl", "ring") if mx.distributed.is_available(name)]


def _variables(rendezvous: Rendezvous, rank: int, folder: Path) -> dict[str, str]:
    """Return MLX's variables; writes the file that one of them names."""
    own = {"MLX_RANK": str(rank)}
    match rendezvous.backend:
        case "ring":
            return own | {"MLX_HOSTFILE": _file(folder, rendezvous.addresses)}
        case "jaccl" | "jaccl-ring":
            return own | {
                "MLX_IBV_DEVICES": _file(folder, rendezvous.devices),
                "MLX_JACCL_COORDINATOR": rendezvous.coordinator,
                **({"MLX_JACCL_RING": "1"} if rendezvous.backend == "jaccl-ring" else {}),
            }
        case "nccl":
            host, _, port = rendezvous.coordinator.rpartition(":")
            size = str(len(rendezvous.addresses))
            return own | {"MLX_WORLD_SIZE": size, "NCCL_HOST_IP": host, "NCCL_PORT": port}


def _file(folder: Path, content: Any) -> str:
    file = folder / "hosts.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return str(file)


@contextmanager
def _alarm(timeout_s: int) -> Generator[None]:
    """End the process if the block takes longer: a Python handler would never run in it."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(timeout_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(available_backends()))
