"""Whether Claude Code is told to think: by the option, else the setting, else what the model can do."""

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
from tests import tiny_models
from tests.cli.claude.test_command import became
from tests.cli.fake_server import FakeServer, health, serving
from tests.prompt.thinking_styles import QWEN

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


def env(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    assert run(["env", "--json", *words]) == 0
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
def test_by_itself_only_a_model_whose_thoughts_end_is_to_think(
    mode: str, thinking: str, thinks: bool, tmp_path: Path
) -> None:
    settings = Settings(under_home(tmp_path), thinking=mode)  # type: ignore[arg-type]
    assert is_to_think(settings, thinking) == thinks


def test_thinking_is_a_value_and_not_another_name() -> None:
    target = Target("http://127.0.0.1:7777", "k", "tiny", is_running=True)
    without, told = variables(target), variables(replace(target, thinks=True))
    assert list(without) == list(told)
    assert {name: (without[name], told[name]) for name in told if told[name] != without[name]} == {
        "CLAUDE_CODE_MODEL_CAPABILITIES": (OFF, ON),
        "CLAUDE_CODE_DISABLE_THINKING": ("1", "0"),
    }


@pytest.mark.parametrize(
    ("thinking", "words", "setting", "disabled"),
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
    words: str,
    setting: str,
    disabled: str,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.healths = lambda: health() | {"thinking": thinking}
    monkeypatch.setenv("PENSIEVE_THINKING", setting)
    told = env(capsys, *words.split())
    assert told["CLAUDE_CODE_DISABLE_THINKING"] == disabled


def test_the_last_line_of_env_repeats_the_option(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "--lite", "--thinking", "on"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "pensieve env --lite --thinking on" in last


@pytest.mark.parametrize(("word", "code"), [("maybe", 2), ("on", 0)])
def test_only_three_words_are_taken(
    word: str, code: int, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "--thinking", word]) == code


def thinking_folder(folder: Path) -> Path:
    """A tiny model whose template and vocabulary think."""
    tiny_models.build("qwen3", folder)
    config = folder / "tokenizer_config.json"
    stored = json.loads(config.read_bytes()) | {"chat_template": QWEN}
    marks = {str(900 + at): {"content": mark} for at, mark in enumerate(("<think>", "</think>"))}
    config.write_text(json.dumps(stored | {"added_tokens_decoder": marks}), encoding="utf-8")
    return folder


def test_without_a_server_the_models_files_tell(
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSIEVE_MODEL", str(thinking_folder(tmp_path / "thinker")))
    assert env(capsys)["CLAUDE_CODE_DISABLE_THINKING"] == "0"
    monkeypatch.setenv("PENSIEVE_MODEL", "someone/never-fetched")
    assert env(capsys)["CLAUDE_CODE_DISABLE_THINKING"] == "1"


def test_show_tells_of_thinking_and_of_what_claude_code_is_told(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(thinking_folder(tmp_path / "thinker"))
    assert run(["show", folder]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "thinking at low, medium or xhigh effort, medium unless asked; only when asked" in shown
    assert "a thought ends after its budget; Claude Code has it think: yes" in shown
    assert run(["show", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thinking"] == {
        "kind": "bounded",
        "efforts": ["low", "medium", "xhigh"],
        "default_effort": "medium",
        "can_be_off": True,
        "claude_code": True,
    }


def test_show_of_a_model_that_does_not_think_says_so(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(tiny_models.build("llama", tmp_path / "plain"))]) == 0
    assert "no sign of it in its chat template" in capsys.readouterr().out
    assert run(["show", "someone/never-fetched"]) == 0
    assert "thinking" not in capsys.readouterr().out


def test_claude_code_begins_at_medium_effort_where_it_is_to_think(
    server: FakeServer, paths: Paths
) -> None:
    settings = Settings(paths, port=server.server_port)
    plain = became(settings)
    assert "effortLevel" not in plain.settings
    assert plain.environment["CLAUDE_CODE_DISABLE_THINKING"] == "1"
    server.healths = lambda: health() | {"thinking": "bounded"}
    told = became(settings, "--settings", '{"effortLevel":"xhigh"}')
    assert told.settings["effortLevel"] == "xhigh"
    assert told.settings["env"]["CLAUDE_CODE_DISABLE_THINKING"] == "0"
    assert became(settings).settings["effortLevel"] == "medium"
    assert "effortLevel" not in became(replace(settings, thinking="off")).settings


def test_thinking_with_its_value_is_ours_where_it_stands_first() -> None:
    from pensieve.cli.app import _untouched as cut

    assert cut(["claude", "--thinking", "on", "-p", "x"]) == [
        *("claude", "--thinking", "on", "--", "-p", "x")
    ]
    assert cut(["claude", "--lite", "--thinking=off", "-c"]) == [
        *("claude", "--lite", "--thinking=off", "--", "-c")
    ]
    assert cut(["claude", "-p", "--thinking", "on"]) == ["claude", "--", "-p", "--thinking", "on"]
    assert cut(["claude", "--thinking"]) == ["claude", "--thinking"]
