"""How the engine worker's process is started and ended: command, environment, socket pair."""

import ctypes.util
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import Process

from pensieve.engine.generation import ResourceLimits
from pensieve.engine.protocol import Load
from pensieve.isolation import python
from pensieve.settings.resolve import Device, child_environment

# Debian's package libopenblas0-pthread; only one that is a drop-in for BLAS's own names will do.
_OPENBLAS_PATTERN = "*/openblas-pthread/libopenblas.so.0"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Which model the worker loads, on which device, where it keeps prefixes on disk (None:
    nowhere), and what it may use.

    planned_tokens: the context that it is expected to guarantee, told until it has said so itself;
    None: not known.
    prefix_salt: prefixes that were kept under another one are not found.
    """

    model_folder: Path
    device: Device
    prefix_folder: Path | None = None
    allowance: ResourceLimits = field(default_factory=ResourceLimits)
    planned_tokens: int | None = None
    prefix_salt: str = ""

    @property
    def load_frame(self) -> Load:
        """The worker's first frame."""
        prefix_folder = str(self.prefix_folder) if self.prefix_folder else None
        return Load(
            str(self.model_folder), self.device, prefix_folder, self.allowance, self.prefix_salt
        )


WORKER = ("-m", "pensieve.engine.worker.worker")


async def open_worker(
    spec: WorkerSpec, program: Sequence[str] = WORKER
) -> tuple[Process, socket.socket]:
    """Start a worker; the socket is the front end's end of the socket pair. Raises OSError where none starts.

    program: what Python is told to run.
    """
    ours, theirs = socket.socketpair()
    with theirs, ExitStack() as on_failure:
        on_failure.callback(ours.close)
        process = await anyio.open_process(
            python(*program, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=None,
            stderr=None,
            env=child_environment(worker_variables(spec.device)),
            pass_fds=[theirs.fileno()],
        )
        on_failure.pop_all()
    return process, ours


async def describe_exit(process: Process) -> str:
    """A worker that closed its socket is about to end; one that does not is ended."""
    with anyio.move_on_after(5):
        await process.wait()
    if process.returncode is None:
        return "it closed its connection"
    code = process.returncode
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def end_worker(process: Process) -> None:
    """No worker outlives its line, also when the server is being cancelled."""
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.aclose()


def worker_variables(device: Device, platform: str = sys.platform) -> dict[str, str]:
    """What the worker's environment has beyond ours."""
    if device == "gpu":
        # macOS is slower then to end work on the GPU that holds up the screen (omlx issue 1387).
        return {"AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1"} if platform == "darwin" else {}
    # On a CPU, MLX compiles small graphs with the system's C++ compiler at first use: seconds of
    # delay, no gain (x86-64, 2026-11-22; on a Mac not measured).
    variables = {"MLX_DISABLE_COMPILE": "1"}
    if platform == "linux" and (library := find_openblas()):
        # MLX's wheel brings the reference BLAS; OpenBLAS ahead of it makes prefill about 20 times faster.
        variables["LD_PRELOAD"] = library
    return variables


def find_openblas() -> str | None:
    """OpenBLAS as this Linux machine has it installed, if it has."""
    for place in sorted(Path("/usr/lib").glob(_OPENBLAS_PATTERN)):
        return str(place)
    return ctypes.util.find_library("openblas")
