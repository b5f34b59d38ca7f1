"""`pensieve claude` up to the exec of a stand-in; tests/claude runs the real Claude Code."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pensieve.cli.app import run
from pensieve.cli.claude.command import exec_claude
from pensieve.cli.claude.settings import with_settings
from pensieve.cli.launch.program import Program
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import ProgramMissingError, UsageError
from pensieve.paths import under_home
from pensieve.settings.resolve import DEFAULT_API_KEY, Settings
from tests.cli.commands.server.test_start import Recorder
from tests.cli.fake_server import health, serving


class Became(Exception):  # noqa: N818 -- nothing went wrong
    """Raised in place of exec."""

    def __init__(self, path: str, words: list[str], environment: Mapping[str, str]) -> None:
        super().__init__(path)
        self.words = words
        self.environment = environment

    @property
    def settings(self) -> dict[str, object]:
        return json.loads(self.words[self.words.index("--settings") + 1])


def execute(path: str, words: list[str], environment: Mapping[str, str]) -> NoReturn:
    raise Became(path, words, environment)


HERE = Program(lambda _: "/opt/claude", execute)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a home whose server runs, with a context of 8192 tokens."""
    settings = Settings(under_home(tmp_path / "home"))
    with (
        serving() as server,
        server_lock.acquire(settings.paths),
        publish(
            settings.paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
        ),
    ):
        yield replace(settings, port=server.server_port)


def became(settings: Settings, *arguments: str, is_lite: bool = False) -> Became:
    with pytest.raises(Became) as caught:
        exec_claude(HERE, settings, Recorder(settings).dependencies(), arguments, is_lite=is_lite)
    return caught.value


def test_claude_code_receives_the_arguments_unchanged(settings: Settings) -> None:
    given = became(settings, "-p", "hi there", "--model", "opus", "--lite")
    assert given.words[0] == "/opt/claude"
    assert given.words[3:] == ["-p", "hi there", "--model", "opus", "--lite"]
    assert given.environment["ANTHROPIC_BASE_URL"] == settings.base_url
    assert given.environment["ANTHROPIC_AUTH_TOKEN"] == DEFAULT_API_KEY
    assert given.environment["PATH"] == os.environ["PATH"]


def test_version_mismatch_is_reported_before_claude_code_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(under_home(tmp_path / "home"))
    with serving() as server, server_lock.acquire(settings.paths):
        server.healths = lambda: health() | {"version": "0.0.9"}
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(settings.paths, own_record(address)):
            became(replace(settings, port=server.server_port), "-p", "hi")
    assert "the server is version 0.0.9" in capsys.readouterr().err


def test_claude_code_that_cannot_be_executed_is_reported(settings: Settings) -> None:
    def fails(path: str, words: list[str], environment: Mapping[str, str]) -> NoReturn:
        raise OSError(8, "Exec format error")

    program = Program(lambda _: "/opt/claude", fails)
    with pytest.raises(ProgramMissingError, match="/opt/claude: Exec format error"):
        exec_claude(
            program, settings, Recorder(settings).dependencies(), ["-p", "hi"], is_lite=False
        )


def test_behind_a_proxy_the_server_is_reached_without_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "corp.example")
    given = became(settings, "-p", "hi")
    excepted = "corp.example,pensieve.localhost,127.0.0.1,localhost"
    assert given.environment["NO_PROXY"] == excepted
    # The `env` of the user's settings files overrides the environment.
    assert given.settings["env"]["NO_PROXY"] == excepted


def test_a_proxy_in_claude_codes_own_settings_is_kept_off_this_machine(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"env": {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "corp.example"}}
    (tmp_path / "settings.json").write_text(json.dumps(own))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    given = became(settings, "-p", "hi")
    assert given.settings["env"]["no_proxy"].startswith("corp.example,pensieve.localhost,")


def test_key_needs_no_confirmation_and_is_not_in_the_process_list(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "one for another place")
    given = became(settings, "-p", "hi")
    assert "ANTHROPIC_API_KEY" not in given.environment
    assert not [argument for argument in given.words if DEFAULT_API_KEY in argument]


def test_our_settings_override_the_env_of_a_settings_file(
    settings: Settings,
) -> None:
    printed = became(settings).settings
    assert printed["env"]["ANTHROPIC_BASE_URL"] == settings.base_url
    assert printed["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "8192"
    assert printed["permissions"]["disableAutoMode"] == "disable"
    assert "Agent" in printed["permissions"]["deny"]


@pytest.mark.parametrize("form", ["words", "one word", "file"])
def test_user_settings_are_merged_and_take_precedence(form: str, tmp_path: Path) -> None:
    own = {"permissions": {"deny": ["Bash"]}, "model": "opus", "env": {"DISABLE_TELEMETRY": "0"}}
    file = tmp_path / "own.json"
    file.write_text(json.dumps(own), encoding="utf-8")
    given = {
        "words": ["--settings", json.dumps(own)],
        "one word": [f"--settings={json.dumps(own)}"],
        "file": ["--settings", str(file)],
    }[form]
    option, merged, *rest = with_settings(
        ["-p", *given, "hi"], {"DISABLE_TELEMETRY": "1", "A": "1"}
    )
    assert (option, rest) == ("--settings", ["-p", "hi"])
    assert json.loads(merged) == {
        "env": {"DISABLE_TELEMETRY": "0", "A": "1"},
        "permissions": {"disableAutoMode": "disable", "deny": ["Bash"]},
        "skipWebFetchPreflight": True,
        "model": "opus",
    }


@pytest.mark.parametrize("given", [["--settings"], ["--settings", "[1]"], ["--settings", "{"]])
def test_settings_that_cannot_be_read_are_refused(given: list[str]) -> None:
    with pytest.raises(UsageError, match="--settings"):
        with_settings(given, {})


def test_arguments_after_two_dashes_are_no_options() -> None:
    assert with_settings(["-p", "--", "--settings"], {})[2:] == ["-p", "--", "--settings"]


def test_missing_claude_code_names_the_install_command(settings: Settings) -> None:
    with pytest.raises(ProgramMissingError, match="not installed") as caught:
        exec_claude(
            Program(lambda _: None, execute),
            settings,
            Recorder(settings).dependencies(),
            [],
            is_lite=False,
        )
    assert caught.value.exit_code == 69
    assert "npm install -g @anthropic-ai/claude-code" in caught.value.hint


def test_context_too_small_for_the_first_request_is_refused(
    tmp_path: Path,
) -> None:
    settings = Settings(under_home(tmp_path / "home"))
    with (
        serving() as server,
        server_lock.acquire(settings.paths),
        publish(
            settings.paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
        ),
    ):
        server.healths = lambda: health("ready") | {"context_tokens": 4096}
        with pytest.raises(UsageError, match="tiny has a context of 4096 tokens") as caught:
            exec_claude(HERE, settings, Recorder(settings).dependencies(), [], is_lite=False)
        assert "pensieve claude --lite" in caught.value.hint
        assert became(settings, is_lite=True).environment["CLAUDE_CODE_SIMPLE"] == "1"


def test_command_reports_missing_claude_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["claude", "-p", "hi"]) == 69
    out, err = capsys.readouterr()
    assert out == ""
    assert "npm install" in err
