"""Two whole engines on this machine, behind one server."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import anthropic
import pytest

from pensieve.machine import inspect
from pensieve.models.catalog.memory_fit import memory_limit_here
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.e2e.installation import KEY, health
from tests.e2e.machines.conftest import TinyInstallation, installations


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Generator[TinyInstallation]:
    base = tmp_path_factory.mktemp("replicas")
    (installation,) = installations(base, tiny_folder, ["two engines"])
    installation.start("--workers", "2")
    installation.wait_for("the model is loaded", times=2)
    yield installation
    installation.pensieve("stop")


@pytest.fixture
def client(pair: TinyInstallation) -> Generator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=pair.base_url, api_key=KEY, max_retries=8) as client:
        yield client


def ask(client: anthropic.Anthropic, story: str) -> anthropic.types.Usage:
    """Ask a question after a long text; return what was counted."""
    message = client.messages.create(
        model="tiny",
        max_tokens=4,
        system=f"{story} " * 30,
        messages=[{"role": "user", "content": "Whose story is it?"}],
    )
    return message.usage


def test_sessions_find_their_prefixes_also_after_one_engine_was_killed(
    pair: TinyInstallation, client: anthropic.Anthropic
) -> None:
    stories = ["The fox runs home.", "Rain falls on the hill.", "Three boats went out."]
    assert [ask(client, story).cache_read_input_tokens for story in stories] == [0, 0, 0]
    assert all((ask(client, story).cache_read_input_tokens or 0) > 90 for story in stories)
    replicas = health(pair)["replicas"]
    assert [each["state"] for each in replicas] == ["ready", "ready"]
    os.kill(replicas[0]["worker_pid"], signal.SIGKILL)
    assert all(ask(client, story).output_tokens == 4 for story in stories)
    assert all((ask(client, story).cache_read_input_tokens or 0) > 90 for story in stories)


def test_engines_share_the_memory_of_the_machine_and_write_to_folders_of_their_own(
    pair: TinyInstallation, client: anthropic.Anthropic
) -> None:
    pair.wait_for("the model is loaded", times=3)
    ask(client, "A fourth one.")
    limits = [each["memory_limit_bytes"] for each in health(pair)["replicas"]]
    settings = Settings(under_home(pair.home), device="cpu")
    whole = memory_limit_here(inspect(), settings).limit_bytes
    assert sum(limits) == pytest.approx(whole, rel=0.01)
    prefixes = pair.home / "prefixes"
    assert all(list(folder.glob(f"*-{'?' * 32}")) for folder in (prefixes, prefixes / "worker-2"))
    assert "engines      worker-1: ready" in pair.pensieve("status").stdout


def test_engines_restart_one_after_another_while_requests_are_answered(
    pair: TinyInstallation, client: anthropic.Anthropic
) -> None:
    before = [each["worker_pid"] for each in health(pair)["replicas"]]
    assert "worker-1, worker-2 restart" in pair.pensieve("restart", "--rolling").stdout
    while "worker-2 was restarted" not in (pair.home / "logs" / "server.log").read_text():
        assert ask(client.with_options(max_retries=0), "It goes on.").output_tokens == 4
    after = health(pair)["replicas"]
    assert [each["state"] for each in after] == ["ready", "ready"]
    assert not {each["worker_pid"] for each in after} & set(before)
