"""Starts and ends the engine worker's process: command, environment, socket pair."""

import ctypes.util
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import Process

from pensieve.engine.generation import ResourceLimits
from pensieve.engine.protocol import Load
from pensieve.isolation import python
from pensieve.settings.resolve import Device, Settings, child_environment

GB = 10**9
# Debian's package libopenblas0-pthread: it exports the plain BLAS names.
_OPENBLAS_PATTERN = "*/openblas-pthread/libopenblas.so.0"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    model_folder: Path
    device: Device
    prefix_folder: Path | None = None  # the disk prefix cache; None: no disk tier
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    # The context expected to fit in memory, reported until the worker has measured it.
    planned_tokens: int | None = None
    prefix_salt: str = ""  # prefixes stored under another salt are not found
    has_speculation: bool = True  # where it pays on the device
    host: str = ""  # the machine that the worker runs on; empty: this one
    has_pictures: bool = True  # where the model has a tower

    @property
    def load_frame(self) -> Load:
        prefix_folder = str(self.prefix_folder) if self.prefix_folder else None
        return Load(
            str(self.model_folder),
            self.device,
            prefix_folder,
            self.limits,
            self.prefix_salt,
            self.has_speculation,
            has_pictures=self.has_pictures,
        )


OpenWorker = Callable[[WorkerSpec], Awaitable[tuple[Process, socket.socket]]]


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One of several engines that run the same model."""

    name: str
    worker: WorkerSpec
    open_worker: OpenWorker


# Of ranks of one model, by the exit codes in engine/ranks/wire.py.
_RANK_EXITS = {
    71: "another machine's part of the model ended, or its connection was lost",
    72: "another machine fell silent",
    73: "the machines made no progress together",
    75: "the machines computed different things",
    76: "a step failed",
}
SSH_FAILED = 255  # the exit code for its own errors; see ssh(1)
WORKER = ("-m", "pensieve.engine.worker.worker")


async def open_worker(
    spec: WorkerSpec,
    program: Sequence[str] = WORKER,
    arguments: Sequence[str] = (),
    fds: Sequence[int] = (),
) -> tuple[Process, socket.socket]:
    """Start a worker; return it with the front end's socket. Raises OSError if it does not start.

    program: arguments for Python. The worker's own are its socket, `arguments`, and further `fds`.
    """
    ours, theirs = socket.socketpair()
    with theirs, ExitStack() as on_failure:
        on_failure.callback(ours.close)
        process = await anyio.open_process(
            python(*program, str(theirs.fileno()), *arguments, *map(str, fds)),
            stdin=subprocess.DEVNULL,
            stdout=None,
            stderr=None,
            env=child_environment(worker_variables(spec.device)),
            pass_fds=[theirs.fileno(), *fds],
        )
        on_failure.pop_all()
    return process, ours


async def describe_exit(process: Process) -> str:
    """Wait at most 5 s for a worker that closed its socket, and return how it ended."""
    with anyio.move_on_after(5):
        await process.wait()
    if process.returncode is None:
        return "it closed its connection"
    code = process.returncode
    if code < 0:
        return f"signal {-code}"
    return _RANK_EXITS.get(code, f"exit code {code}")


def is_link_lost(process: Process, host: str) -> bool:
    """Whether ssh ended because the other machine, or the network, was gone."""
    return bool(host) and process.returncode == SSH_FAILED


async def end_worker(process: Process) -> None:
    """Kill the worker if it runs; wait for its end even when cancelled."""
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.aclose()


def worker_variables(device: Device, platform: str = sys.platform) -> dict[str, str]:
    """Return the worker's environment variables on top of ours."""
    if device == "gpu":
        # In TF32, products of one row and of several round differently: an answer of float32
        # weights was not the same alone and in a batch (H200, 2026-11-30).
        variables = {"MLX_ENABLE_TF32": "0"}
        if platform == "darwin":
            # Makes macOS slower to abort GPU work that holds up the screen (omlx issue 1387).
            variables["AGX_RELAX_CDM_CTXSTORE_TIMEOUT"] = "1"
            # Where it is on, ranks of a model deadlock, and the GPU hangs until the Mac is
            # restarted (ml-explore/mlx#3142, #3830). Other programs recommend it.
            variables["MLX_METAL_FAST_SYNCH"] = "0"
        else:
            # Plans of attention, 70 to 130 ms each; 16 by default, which a prompt of 33 000 tokens
            # has (engine/model/kv/composed.py).
            variables["MLX_CUDA_SDPA_CACHE_SIZE"] = "256"
        return variables
    # On a CPU, MLX compiles small graphs with the system's C++ compiler at first use: seconds of
    # delay, no gain (x86-64, 2026-11-22; on a Mac not measured).
    variables = {"MLX_DISABLE_COMPILE": "1"}
    if platform == "linux" and (library := find_openblas()):
        # MLX's wheel contains the reference BLAS; preloading OpenBLAS makes prefill about 20 times
        # faster.
        variables["LD_PRELOAD"] = library
    return variables


def find_openblas() -> str | None:
    for library in sorted(Path("/usr/lib").glob(_OPENBLAS_PATTERN)):
        return str(library)
    return ctypes.util.find_library("openblas")


def resource_limits_of(settings: Settings) -> ResourceLimits:
    return ResourceLimits(
        _bytes(settings.memory_gb),
        settings.kv_bits,
        _bytes(settings.cache_gb),
        _bytes(settings.daily_write_gb),
        settings.wired,
    )


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * GB)
