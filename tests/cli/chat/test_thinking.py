"""Whether Claude Code asks for thinking: by option, else setting, else the model's abilities."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.claude.environment import variables
from pensieve.cli.client.target import Target, is_to_think
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.paths import Paths, under_home
from pensieve.settings.resolve import Settings
from tests.cli.claude.test_command import became
from tests.cli.fake_server import FakeServer, health, serving
from tests.prompt.thinking_styles import QWEN
from tests.support import tiny_models

OFF = "-mid_conv_system,-mid_conv_tool_change,-context_management,-effort,-adaptive_thinking"
ON = "-mid_conv_system,-mid_conv_tool_change,-context_management"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in [name for name in os.environ if name.startswith(("PENSIEVE_", "ANTHROPIC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHELL", "/bin/bash")
    return under_home(tmp_path / "home")


@pytest.fixture
def server(paths: Paths) -> Iterator[FakeServer]:
    with (
        serving() as server,
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))),
    ):
        yield server


def env(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    assert run(["env", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("mode", "thinking", "thinks"),
    [
        ("auto", "bounded", True),
        ("auto", "unbounded", False),
        ("auto", "none", False),
        ("auto", "", False),
        ("on", "none", True),
        ("off", "bounded", False),
    ],
)
def test_auto_enables_only_bounded_thinking(
    mode: str, thinking: str, thinks: bool, tmp_path: Path
) -> None:
    settings = Settings(under_home(tmp_path), thinking=mode)  # type: ignore[arg-type]
    assert is_to_think(settings, thinking) == thinks


def test_thinking_changes_values_and_not_names() -> None:
    target = Target("http://127.0.0.1:7777", "k", "tiny", is_running=True)
    without, report = variables(target), variables(replace(target, thinks=True))
    assert list(without) == list(report)
    assert {
        name: (without[name], report[name]) for name in report if report[name] != without[name]
    } == {
        "CLAUDE_CODE_MODEL_CAPABILITIES": (OFF, ON),
        "CLAUDE_CODE_DISABLE_THINKING": ("1", "0"),
    }


@pytest.mark.parametrize(
    ("thinking", "arguments", "setting", "disabled"),
    [
        ("bounded", "", "", "0"),
        ("unbounded", "", "", "1"),
        ("bounded", "--thinking off", "", "1"),
        ("none", "--thinking on", "", "0"),
        ("bounded", "", "off", "1"),
        ("bounded", "--thinking auto", "off", "0"),
    ],
)
def test_env_follows_the_option_then_the_setting_then_the_server(
    thinking: str,
    arguments: str,
    setting: str,
    disabled: str,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.healths = lambda: health() | {"thinking": thinking}
    monkeypatch.setenv("PENSIEVE_THINKING", setting)
    report = env(capsys, *arguments.split())
    assert report["CLAUDE_CODE_DISABLE_THINKING"] == disabled


def test_the_last_line_of_env_repeats_the_option(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "--lite", "--thinking", "on"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "pensieve env --lite --thinking on" in last


@pytest.mark.parametrize(("argument", "code"), [("maybe", 2), ("on", 0)])
def test_only_three_thinking_modes_are_accepted(
    argument: str, code: int, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "--thinking", argument]) == code


def thinking_folder(folder: Path) -> Path:
    """A tiny model whose template and vocabulary support thinking."""
    tiny_models.build("qwen3", folder)
    config = folder / "tokenizer_config.json"
    stored = json.loads(config.read_bytes()) | {"chat_template": QWEN}
    marks = {str(900 + at): {"content": mark} for at, mark in enumerate(("<think>", "</think>"))}
    config.write_text(json.dumps(stored | {"added_tokens_decoder": marks}), encoding="utf-8")
    return folder


def test_without_a_server_thinking_comes_from_the_models_files(
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSIEVE_MODEL", str(thinking_folder(tmp_path / "thinker")))
    assert env(capsys)["CLAUDE_CODE_DISABLE_THINKING"] == "0"
    monkeypatch.setenv("PENSIEVE_MODEL", "someone/never-fetched")
    assert env(capsys)["CLAUDE_CODE_DISABLE_THINKING"] == "1"


def test_show_describes_thinking_and_its_use_by_claude_code(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(thinking_folder(tmp_path / "thinker"))
    assert run(["show", folder]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "thinking at low, medium or xhigh effort, medium by default; only on request" in shown
    assert "limited by a budget; Claude Code asks it to think: yes" in shown
    assert run(["show", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thinking"] == {
        "kind": "bounded",
        "efforts": ["low", "medium", "xhigh"],
        "default_effort": "medium",
        "can_be_off": True,
        "claude_code": True,
    }


def test_show_of_a_model_without_thinking(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(tiny_models.build("llama", tmp_path / "plain"))]) == 0
    assert "not supported by its chat template" in capsys.readouterr().out
    assert run(["show", "someone/never-fetched"]) == 0
    assert "thinking" not in capsys.readouterr().out


def test_claude_code_starts_at_medium_effort_if_it_thinks(server: FakeServer, paths: Paths) -> None:
    settings = Settings(paths, port=server.server_port)
    plain = became(settings)
    assert "effortLevel" not in plain.settings
    assert plain.environment["CLAUDE_CODE_DISABLE_THINKING"] == "1"
    server.healths = lambda: health() | {"thinking": "bounded"}
    report = became(settings, "--settings", '{"effortLevel":"xhigh"}')
    assert report.settings["effortLevel"] == "xhigh"
    assert report.settings["env"]["CLAUDE_CODE_DISABLE_THINKING"] == "0"
    assert became(settings).settings["effortLevel"] == "medium"
    assert "effortLevel" not in became(replace(settings, thinking="off")).settings


def test_leading_thinking_option_is_not_passed_to_claude_code() -> None:
    from pensieve.cli.arguments import separate_agent_arguments as cut

    assert cut(["claude", "--thinking", "on", "-p", "x"]) == [
        *("claude", "--thinking", "on", "--", "-p", "x")
    ]
    assert cut(["claude", "--lite", "--thinking=off", "-c"]) == [
        *("claude", "--lite", "--thinking=off", "--", "-c")
    ]
    assert cut(["claude", "-p", "--thinking", "on"]) == ["claude", "--", "-p", "--thinking", "on"]
    assert cut(["claude", "--thinking"]) == ["claude", "--thinking"]
