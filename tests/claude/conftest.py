"""The real Claude Code, at home in a folder of the test's, and two servers: one on a taught model, one on the embedded one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claude.driving import ClaudeCode
from tests.claude.taught import taught_folder
from tests.clients.installed import claude_code
from tests.e2e.installation import Installation
from tests.support.ports import free_port


@pytest.fixture(scope="session")
def commands() -> Path:
    """The folder with the command `claude`."""
    return claude_code()


@pytest.fixture(scope="session")
def taught(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server on a model that was taught what to do, with a context of 32 768 tokens."""
    journey = Installation(tmp_path_factory.mktemp("taught home"), free_port())
    start(journey)
    yield journey
    journey.pensieve("stop")


@pytest.fixture(scope="session")
def embedded(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server on the embedded model, with a context of 8192 tokens."""
    journey = Installation(tmp_path_factory.mktemp("home"), free_port())
    journey.start()
    yield journey
    journey.pensieve("stop")


def start(journey: Installation) -> None:
    """Start the server of `taught`, also once more."""
    journey.pensieve("start", "--model", str(taught_folder()), "--device", "cpu")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Claude Code runs in; one, since its name is in every prompt and what follows is processed anew."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def claude(commands: Path, work: Path, tmp_path: Path) -> ClaudeCode:
    """Claude Code that nobody has used yet."""
    home = tmp_path / "home"
    home.mkdir()
    return ClaudeCode(home, work, f"{commands}{os.pathsep}{os.environ['PATH']}")
