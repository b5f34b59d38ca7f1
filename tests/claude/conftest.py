"""The real Claude Code, with its own home, and servers of a trained and the embedded model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claude.claude_code import ClaudeCode
from tests.claude.trained import trained_folder
from tests.clients.installed import claude_code
from tests.e2e.installation import Installation
from tests.support.ports import free_port


@pytest.fixture(scope="session")
def commands() -> Path:
    """The folder of the command `claude`."""
    return claude_code()


@pytest.fixture(scope="session")
def trained(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server of a model that was trained for these tests, with a context of 32 768 tokens."""
    installation = Installation(tmp_path_factory.mktemp("trained home"), free_port())
    start(installation)
    yield installation
    installation.pensieve("stop")


@pytest.fixture(scope="session")
def embedded(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server of the embedded model, with a context of 8192 tokens."""
    installation = Installation(tmp_path_factory.mktemp("home"), free_port())
    installation.start()
    yield installation
    installation.pensieve("stop")


def start(installation: Installation) -> None:
    """Start or restart the server of `trained`."""
    installation.pensieve("start", "--model", str(trained_folder()), "--device", "cpu")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of Claude Code; one, since its name is part of every prompt."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def claude(commands: Path, work: Path, tmp_path: Path) -> ClaudeCode:
    """Claude Code with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    return ClaudeCode(home, work, f"{commands}{os.pathsep}{os.environ['PATH']}")
