"""What every test shares: one event loop kind, and MLX as the worker has it on a CPU: without its compiler, with OpenBLAS.

(models.md §2.3: seconds saved, nothing lost.)
"""

import ctypes
import os
import signal
import sys

import pytest

from pensieve.engine.launch import find_openblas

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
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


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
