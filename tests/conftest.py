"""What every test shares: one event loop kind, and MLX without its compiler (models.md §2.3: seconds saved, nothing lost)."""

import os

import pytest

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write golden transcripts anew instead of comparing",
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
