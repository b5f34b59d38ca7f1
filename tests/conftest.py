"""Settings of all tests: the event loop, hypothesis, markers, and MLX as the worker runs on a CPU.

Without MLX's compiler and with OpenBLAS, which saves seconds.
"""

import ctypes
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from pensieve.engine.client.launch import find_openblas

# Folders whose tests share a server, a trained model or downloads: in one process, one after
# another. The longest is first.
SHARED_FOLDERS = ("e2e", "claude", "clients", "page")
SLOW_FOLDERS = (*SHARED_FOLDERS, "mlx")

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two threads are a fifth faster, but use the core of the other test process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Results depend neither on chance nor on a slow machine: the same examples each time (others with
# PENSIEVE_EXPLORE=1), and no time limits.
settings.register_profile(
    "repeatable",
    derandomize="PENSIEVE_EXPLORE" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
# A shell's background jobs ignore SIGINT, and programs that a test interrupts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform == "linux" and (openblas := find_openblas()):
    # Loaded before MLX, its symbols replace those of the BLAS in MLX's wheel.
    ctypes.CDLL(openblas, mode=ctypes.RTLD_GLOBAL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="rewrite golden transcripts instead of comparing",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if folder_of(item.nodeid) in SLOW_FOLDERS:
            item.add_marker("slow")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # So that all processes end with short tests, at the same time.
        order = {folder: place for place, folder in enumerate(SLOW_FOLDERS)}
        items.sort(key=lambda item: order.get(folder_of(item.nodeid), len(order)))


class FolderScheduling(LoadScopeScheduling):
    """Distributes single tests, but shared folders whole and those of real MLX by module."""

    def _split_scope(self, nodeid: str) -> str:
        folder = folder_of(nodeid)
        if folder in SHARED_FOLDERS:
            return folder
        return super()._split_scope(nodeid) if folder in SLOW_FOLDERS else nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Assign after forgetting finished units: xdist counts in all of them after each test."""
        units = self.assigned_work[node]
        for scope in [scope for scope, tests in units.items() if all(tests.values())]:
            del units[scope]
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FolderScheduling:
    config.option.loadscopereorder = False
    return FolderScheduling(config, log)


def folder_of(nodeid: str) -> str:
    """Return the name of the folder of `tests` that has a test."""
    return nodeid.split("/")[1]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
