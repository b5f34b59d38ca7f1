"""`pensieve launch` up to the exec of a stand-in; tests/clients/openai has the real agents."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.arguments import separate_agent_arguments
from pensieve.cli.launch.agent import Agent
from pensieve.cli.launch.command import AGENTS, LAUNCHERS, exec_agent, listing
from pensieve.cli.launch.program import Program
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import (
    AuthenticationError,
    NotWritableError,
    ProgramMissingError,
    UsageError,
)
from pensieve.paths import under_home
from pensieve.settings.resolve import DEFAULT_API_KEY, Settings
from tests.cli.claude.test_command import Became, execute
from tests.cli.commands.server.test_start import Recorder
from tests.cli.fake_server import health, serving

HERE = Program(lambda name: f"/opt/{name}", execute)
CONTEXT_TOKENS = 65_536
CLIENTS = Path(__file__).parents[3] / "docs" / "clients.md"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a home whose server runs, with an agent's usual context."""
    settings = Settings(under_home(tmp_path / "home"))
    with serving() as server, server_lock.acquire(settings.paths):
        server.healths = lambda: health() | {"context_tokens": CONTEXT_TOKENS}
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(settings.paths, own_record(address)):
            yield replace(settings, port=server.server_port)


def launched(settings: Settings, agent: str, *arguments: str) -> Became:
    with pytest.raises(Became) as caught:
        exec_agent(agent, HERE, settings, Recorder(settings).dependencies(), arguments)
    return caught.value


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_agent_gets_the_users_arguments_last(agent: str, settings: Settings) -> None:
    given = launched(settings, agent, "do it", "--model", "mine")
    assert given.words[0] == f"/opt/{agent}"
    assert given.words[-3:] == ["do it", "--model", "mine"]


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_key_is_not_in_the_process_list(agent: str, settings: Settings) -> None:
    given = launched(settings, agent)
    assert not [word for word in given.words if DEFAULT_API_KEY in word]
    assert [value for value in given.environment.values() if DEFAULT_API_KEY in value]


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_users_own_keys_and_addresses_reach_the_agent_unchanged(
    agent: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"OPENAI_API_KEY": "theirs", "OPENAI_BASE_URL": "https://api.example.com"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    assert own.items() <= launched(settings, agent).environment.items()


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_behind_a_proxy_the_server_is_reached_without_it(
    agent: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    given = launched(settings, agent).environment
    assert given["NO_PROXY"] == given["no_proxy"] == "pensieve.localhost,127.0.0.1,localhost"


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_folder_of_the_agent_is_private(agent: str, settings: Settings) -> None:
    launched(settings, agent)
    folder = settings.paths.agents / agent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file for file in folder.iterdir() if file.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_folder_that_cannot_be_made_is_reported(agent: str, settings: Settings) -> None:
    settings.paths.agents.write_text("")
    with pytest.raises(NotWritableError, match="agents"):
        exec_agent(agent, HERE, settings, Recorder(settings).dependencies(), [])


def test_codex_gets_the_servers_address_model_and_context(settings: Settings) -> None:
    given = launched(settings, "codex", "exec")
    options = [word for word in given.words if "=" in word]
    config = tomllib.loads("\n".join(options))
    assert given.words[1::2][: len(options)] == ["-c"] * len(options)
    assert (config["model"], config["model_context_window"]) == ("tiny", CONTEXT_TOKENS)
    provider = config["model_providers"][config["model_provider"]]
    assert provider["base_url"] == f"{settings.base_url}/v1"
    assert given.environment[provider["env_key"]] == DEFAULT_API_KEY
    assert given.environment["CODEX_HOME"] == str(settings.paths.agents / "codex")


def test_opencode_gets_the_servers_address_model_and_context(settings: Settings) -> None:
    config = json.loads(launched(settings, "opencode").environment["OPENCODE_CONFIG_CONTENT"])
    (provider,) = config["provider"].values()
    assert config["model"] == config["small_model"] == "pensieve/tiny"
    assert provider["options"]["baseURL"] == f"{settings.base_url}/v1"
    assert provider["models"]["tiny"]["limit"] == {"context": CONTEXT_TOKENS, "output": 8192}
    assert config["enabled_providers"] == list(config["provider"])


def test_aider_gets_the_servers_address_model_and_context(settings: Settings) -> None:
    words = launched(settings, "aider").words
    options = dict(zip(words[1::2], words[2::2], strict=False))
    assert options["--openai-api-base"] == f"{settings.base_url}/v1"
    assert {options[f"--{kind}model"] for kind in ("", "weak-", "editor-")} == {"openai/tiny"}
    metadata = json.loads(Path(options["--model-metadata-file"]).read_text())
    assert metadata["openai/tiny"]["max_input_tokens"] == CONTEXT_TOKENS


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_missing_agent_names_the_install_command(agent: str, settings: Settings) -> None:
    absent = Program(lambda _: None, execute)
    with pytest.raises(ProgramMissingError, match=f"`{agent}` was not found") as caught:
        exec_agent(agent, absent, settings, Recorder(settings).dependencies(), [])
    assert AGENTS[agent].install in (caught.value.hint or "")
    assert not settings.paths.agents.exists()


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_context_too_small_for_the_first_request_is_refused(agent: str, tmp_path: Path) -> None:
    settings = Settings(under_home(tmp_path / "home"))
    with serving() as server, server_lock.acquire(settings.paths):
        server.healths = lambda: health() | {"context_tokens": 3000}
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with (
            publish(settings.paths, own_record(address)),
            pytest.raises(UsageError, match="tiny has a context of 3000 tokens"),
        ):
            exec_agent(agent, HERE, settings, Recorder(settings).dependencies(), [])


@pytest.fixture
def small(settings: Settings) -> Iterator[Settings]:
    """Settings of a home whose server has a context of 8192 tokens."""
    with serving() as server, server_lock.acquire(settings.paths):
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(settings.paths, own_record(address)):
            yield settings


@pytest.mark.parametrize(
    "arguments", [["--version"], ["mcp", "list"], ["resume", "--help"], ["debug", "config"]]
)
@pytest.mark.parametrize("agent", ["codex", "opencode"])
def test_what_asks_nothing_of_the_model_needs_no_context(
    agent: str, arguments: list[str], small: Settings
) -> None:
    assert launched(small, agent, *arguments).words[-len(arguments) :] == arguments


def test_codex_exec_needs_less_context(small: Settings) -> None:
    with pytest.raises(UsageError, match="about 8000 of them") as caught:
        exec_agent("codex", HERE, small, Recorder(small).dependencies(), ["fix", "it"])
    assert "pensieve use auto" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="about 5700 of them"):
        exec_agent("codex", HERE, small, Recorder(small).dependencies(), ["exec", "fix it"])


def test_documented_first_requests_are_those_that_are_required() -> None:
    page = CLIENTS.read_text()
    numbers = {number for agent in AGENTS.values() for number in _first_requests(agent)} - {0}
    assert {number for number in numbers if f"{number:,}" not in page} == set()


def _first_requests(agent: Agent) -> set[int]:
    return {agent.first_request_tokens, *agent.subcommand_tokens.values()}


@pytest.mark.parametrize("agent", LAUNCHERS)
def test_refused_key_is_reported_before_the_agent_starts(agent: str, tmp_path: Path) -> None:
    settings = Settings(under_home(tmp_path / "home"))
    with serving() as server, server_lock.acquire(settings.paths):
        server.healths = lambda: health() | {"context_tokens": CONTEXT_TOKENS}
        server.key = "another"
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with (
            publish(settings.paths, own_record(address)),
            pytest.raises(AuthenticationError, match="rejects this key") as caught,
        ):
            exec_agent(agent, HERE, settings, Recorder(settings).dependencies(), [])
    assert "pensieve restart" in (caught.value.hint or "")


def test_users_own_opencode_content_is_merged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"permission": {"bash": "deny"}, "model": "a/b", "provider": {"a": {"npm": "a"}}}
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", json.dumps(own))
    content = json.loads(launched(settings, "opencode").environment["OPENCODE_CONFIG_CONTENT"])
    assert content["permission"] == {"bash": "deny"}
    assert content["model"] == "pensieve/tiny"
    assert set(content["provider"]) == {"a", "pensieve"}


@pytest.mark.parametrize("content", ["{permission", "[]", "[" * 100_000])
def test_opencode_content_that_cannot_be_merged_is_refused(
    content: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", content)
    with pytest.raises(UsageError, match="OPENCODE_CONFIG_CONTENT is not a JSON object"):
        exec_agent("opencode", HERE, settings, Recorder(settings).dependencies(), [])


def test_list_names_each_agent_and_how_to_install_it() -> None:
    only_codex = Program(lambda name: "/opt/codex" if name == "codex" else None)
    rows = {line.split()[0]: line for line in listing(only_codex).splitlines()}
    assert list(rows) == list(AGENTS)
    assert rows.pop("codex").endswith("  installed")
    assert [name for name, row in rows.items() if AGENTS[name].install not in row] == []


def test_launch_without_a_name_lists_agents(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(AGENTS)


def test_zed_is_referred_to_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", "zed", "."]) == 2
    assert "pensieve env --for zed" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["launch", "claude", "-p"], ["launch", "codex", "--help"]])
def test_missing_command_ends_with_its_code(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(arguments) == 69
    out, err = capsys.readouterr()
    assert out == ""
    assert "npm install" in err


@pytest.mark.parametrize(
    ("typed", "separated"),
    [
        ("launch codex -v exec", "launch codex -- -v exec"),
        ("launch codex --help", "launch codex -- --help"),
        ("-q launch -v codex -q", "-q launch -v codex -- -q"),
        ("launch codex -- -p", "launch codex -- -p"),
        ("launch codex", "launch codex"),
        ("launch --help", "launch --help"),
        ("launch", "launch"),
        ("launch claude --lite -p x", "claude --lite -- -p x"),
        ("-q launch -v claude -v", "-q -v claude -- -v"),
        ("claude --lite -p --lite", "claude --lite -- -p --lite"),
        ("claude -- -p", "claude -- -p"),
        ("claude -p -- x", "claude -- -p -- x"),
        ("-q claude -v", "-q claude -- -v"),
        ("claude --lite", "claude --lite"),
        ("chat --lite", "chat --lite"),
        ("-q", "-q"),
        ("", ""),
    ],
)
def test_an_agents_arguments_are_separated(typed: str, separated: str) -> None:
    assert separate_agent_arguments(typed.split()) == separated.split()
