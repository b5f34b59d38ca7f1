"""Settings of every test: one kind of event loop, and MLX as the worker has it on a CPU, without its
compiler and with OpenBLAS, which saves seconds and changes no result.
"""

import ctypes
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from pensieve.engine.client.launch import find_openblas

# Folders whose tests share a server, a taught model or what is fetched for them: in one process, one after another.
TOGETHER = {"claude", "clients", "e2e", "mlx"}

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two threads are a fifth faster and take the core that the tests beside them need.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Neither chance nor a slow machine decides whether a change lands: the same examples each time, unless they are to be
# others (PENSIEVE_EXPLORE=1 pytest …), and no time limits.
settings.register_profile(
    "repeatable",
    derandomize="PENSIEVE_EXPLORE" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
# A shell's background jobs ignore Ctrl-C, and so would every program that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform == "linux" and (openblas := find_openblas()):
    # Here before MLX is, its names hold instead of those of the BLAS that MLX's wheel brings.
    ctypes.CDLL(openblas, mode=ctypes.RTLD_GLOBAL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write golden transcripts anew instead of comparing",
    )


class ByFolder(LoadScopeScheduling):
    """Hands out tests one by one, and those of `TOGETHER` a folder at a time."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        return folder if folder in TOGETHER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFolder:
    return ByFolder(config, log)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
