"""`pensieve env --for`: what other clients than Claude Code need."""

import json
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from pensieve.cli.app import run
from pensieve.cli.commands.setup.env import FILE_CLIENTS, Client
from pensieve.paths import Paths
from tests.cli.program import PROGRAM, environment, shell_program
from tests.cli.test_commands import NASTY_KEY, PROBE, paths
from tests.support.programs import run_program

__all__ = ["paths"]

URL = "http://127.0.0.1:7777/v1"
NU_UNSET = (
    "from nuon | do --env {{ let them = $in; hide-env --ignore-errors ...$them.hide;"
    " load-env $them.load}}"
)
SHELLS = [
    ("bash", 'eval "$({0})"', 'eval "$({0} --unset)"'),
    ("zsh", 'eval "$({0})"', 'eval "$({0} --unset)"'),
    ("dash", 'eval "$({0})"', 'eval "$({0} --unset)"'),
    ("fish", "{0} | source", "{0} --unset | source"),
    ("nu", "{0} | from nuon | load-env", f"{{0}} --unset | {NU_UNSET}"),
]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert run(["env", *arguments]) == 0
    return capsys.readouterr()


def environment_after(shell: str, script: str, home: Path, **own: str) -> dict[str, str]:
    command = " ".join([*PROGRAM, "env", "--for", "openai"])
    done = run_program(
        [shell_program(shell), "-c", f"{script.format(command)}; env -0"],
        env=environment(home, SHELL=f"/bin/{shell}", PENSIEVE_API_KEY=NASTY_KEY, **own),
    )
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


@pytest.mark.parametrize("arguments", [[], ["--for", "codex"]])
def test_env_loads_nothing_that_starts_servers(arguments: list[str], tmp_path: Path) -> None:
    done = run_program([sys.executable, "-c", PROBE, "env", *arguments], env=environment(tmp_path))
    modules = set(done.stderr.splitlines()[-1].split())
    assert ("pensieve.cli.launch.codex" in modules) is bool(arguments)
    assert {each for each in modules if each.startswith("pensieve.cli.lifecycle")} == set()


@pytest.mark.parametrize("client", get_args(Client))
def test_every_client_is_pointed_at_the_server(
    client: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "http://127.0.0.1:7777" in printed(capsys, "--for", client)[0]


@pytest.mark.parametrize("arguments", [[], ["--unset"], ["--json"], ["--for", "aider"]])
def test_openais_variables_are_changed_only_on_request(
    arguments: list[str], paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = printed(capsys, *arguments)
    lines = [line for line in out.splitlines() if not line.startswith("export AIDER_")]
    assert "OPENAI_" not in "\n".join(lines)


@pytest.mark.parametrize(("shell", "setting", "unsetting"), SHELLS)
def test_openais_variables_are_set_and_the_users_own_restored(
    shell: str, setting: str, unsetting: str, tmp_path: Path
) -> None:
    own = {"OPENAI_API_KEY": "it's $theirs \"\\`", "MINE": "kept"}
    after = environment_after(shell, f"{setting}; {setting}", tmp_path, **own)
    assert (after["OPENAI_API_KEY"], after["OPENAI_BASE_URL"]) == (NASTY_KEY, URL)
    undone = environment_after(shell, f"{setting}; {setting}; {unsetting}", tmp_path, **own)
    assert own.items() <= undone.items()
    assert [name for name in undone if name.startswith(("OPENAI_", "PENSIEVE_REPLACED_"))] == [
        "OPENAI_API_KEY"
    ]


def test_the_users_own_key_is_not_printed(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    for options in ([], ["--unset"], ["--json"], ["--dotenv"], ["--shell", "fish"]):
        out, err = printed(capsys, "--for", "openai", *options)
        assert "sk-theirs" not in out + err
    assert "Use it with: pensieve env --for openai --shell fish | source" in out


def test_codex_profile_is_toml_with_address_key_and_context(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys, "--for", "codex")
    profile = tomllib.loads(out)
    provider = profile["model_providers"][profile["model_provider"]]
    assert (provider["base_url"], provider["wire_api"]) == (URL, "responses")
    assert provider["http_headers"] == {"Authorization": "Bearer pensieve-local-key"}
    assert profile["model_context_window"] > 0
    assert "~/.codex/pensieve.config.toml" in err


@pytest.mark.parametrize("client", ["opencode", "zed"])
def test_json_files_have_the_address(
    client: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys, "--for", client)
    assert URL in json.dumps(json.loads(out))
    assert f"{client}" in err


@pytest.mark.parametrize("client", sorted(FILE_CLIENTS))
def test_snippet_is_undone_in_its_file(
    client: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys, "--for", client, "--unset")
    assert out == ""
    assert "Remove" in err


@pytest.mark.parametrize("client", sorted(FILE_CLIENTS))
def test_snippet_as_json_has_place_and_text(
    client: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads(printed(capsys, "--for", client, "--json")[0])
    assert URL in report["text"]
    assert report["place"]


@pytest.mark.parametrize("options", ["--shell bash", "--dotenv", "--lite"])
def test_snippet_is_for_no_shell(
    options: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "--for", "codex", *options.split()]) == 2
    assert "--for codex" in capsys.readouterr().err


def test_snippet_warns_of_a_proxy(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    out, err = printed(capsys, "--for", "opencode")
    assert "NO_PROXY" in err
    assert "NO_PROXY" not in out
