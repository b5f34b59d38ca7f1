"""Findings that concern clients: variables, proxies, Claude Code's settings files."""

import json
from pathlib import Path

import pytest

from pensieve.doctor.checks.clients import check
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from tests.doctor.contexts import healthy_context, of_topic, with_variables

EVAL = 'eval "$(pensieve env)"'
REAL_KEY = "sk-ant-api03-" + "A1b2C3d4" * 8


def examined(context: DoctorContext) -> list[Finding]:
    return list(check(context, managed=context.home / "managed-settings.json"))


def test_a_shell_without_variables_is_healthy(tmp_path: Path) -> None:
    findings = examined(healthy_context(tmp_path))
    assert [finding.topic for finding in findings] == ["base url", "claude code", "its settings"]
    assert {finding.level for finding in findings} == {"ok"}


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("http://127.0.0.1:7777", "ok"),
        ("http://localhost:7777/", "ok"),
        ("http://127.0.0.1:7777/v1", "red"),
        ("http://127.0.0.1:7777/v1/", "red"),
        ("http://127.0.0.1:8080", "warning"),
        ("https://user:hunter2@api.example.com", "warning"),
        ("http://[::1", "red"),
        ("http://127.0.0.1:port", "red"),
    ],
)
def test_a_wrong_base_url_is_reported(tmp_path: Path, url: str, level: str) -> None:
    finding = of_topic(
        examined(with_variables(healthy_context(tmp_path), ANTHROPIC_BASE_URL=url)), "base url"
    )
    assert finding.level == level
    assert level == "ok" or finding.fix == EVAL
    assert "hunter2" not in finding.text


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_a_hosted_key_is_a_warning_and_not_shown(tmp_path: Path, name: str) -> None:
    finding = of_topic(
        examined(with_variables(healthy_context(tmp_path), **{name: REAL_KEY})), "client key"
    )
    assert (finding.level, finding.fix) == ("warning", EVAL)
    assert "hosted API" in finding.text
    assert REAL_KEY not in finding.text
    ours = with_variables(healthy_context(tmp_path), **{name: "pensieve-local-key"})
    assert of_topic(examined(ours), "client key").level == "ok"


@pytest.mark.parametrize(
    ("variables", "is_told"),
    [
        ({"http_proxy": "http://proxy:3128"}, True),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, True),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,127.0.0.1"}, False),
        ({"ALL_PROXY": "socks5://proxy:1080", "no_proxy": "*"}, False),
        ({"https_proxy": "http://proxy:3128"}, False),
    ],
)
def test_a_proxy_without_exception_is_a_warning(
    tmp_path: Path, variables: dict[str, str], is_told: bool
) -> None:
    findings = examined(with_variables(healthy_context(tmp_path), **variables))
    assert any(finding.topic == "proxy" for finding in findings) is is_told


PLACES = {
    "the user's": ".claude/settings.json",
    "the project's": "work/.claude/settings.json",
    "the project's own": "work/.claude/settings.local.json",
    "the company's": "managed-settings.json",
}


def write(home: Path, location: str, stored: object) -> Path:
    file = home / PLACES[location]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(stored if isinstance(stored, str) else json.dumps(stored), encoding="utf-8")
    return file


@pytest.mark.parametrize("location", PLACES)
def test_an_address_in_a_settings_file_is_red_wherever_the_file_is(
    tmp_path: Path, location: str
) -> None:
    file = write(tmp_path, location, {"env": {"ANTHROPIC_BASE_URL": "https://api.example.com"}})
    finding = of_topic(examined(healthy_context(tmp_path)), "its settings")
    assert finding.level == "red"
    assert str(file) in finding.text
    assert str(file) in finding.fix


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({"env": {"ANTHROPIC_MODEL": "claude-opus-5-5"}}, "ANTHROPIC_MODEL"),
        ({"env": {"ANTHROPIC_API_KEY": REAL_KEY}}, "ANTHROPIC_API_KEY"),
        ({"env": {"CLAUDE_CODE_USE_BEDROCK": "1"}}, "CLAUDE_CODE_USE_BEDROCK"),
        ({"apiKeyHelper": "/bin/key"}, "apiKeyHelper"),
        ("{not json", "cannot be read"),
    ],
)
def test_other_overrides_in_a_settings_file_are_warnings(
    tmp_path: Path, stored: object, says: str
) -> None:
    write(tmp_path, "the user's", stored)
    finding = of_topic(examined(healthy_context(tmp_path)), "its settings")
    assert finding.level == "warning"
    assert says in finding.text
    assert REAL_KEY not in finding.text


@pytest.mark.parametrize(
    "stored",
    [
        {},
        [],
        {"env": None},
        {"env": {"ANTHROPIC_BASE_URL": "http://localhost:7777", "ANTHROPIC_MODEL": "phi-3-mini"}},
        {"env": {"EDITOR": "vi"}, "model": "opus"},
    ],
)
def test_a_settings_file_that_agrees_is_healthy(tmp_path: Path, stored: object) -> None:
    write(tmp_path, "the user's", stored)
    assert of_topic(examined(healthy_context(tmp_path)), "its settings").level == "ok"


def test_claude_config_dir_is_respected(tmp_path: Path) -> None:
    write(tmp_path, "the user's", {"env": {"ANTHROPIC_BASE_URL": "https://api.example.com"}})
    moved = with_variables(healthy_context(tmp_path), CLAUDE_CONFIG_DIR=str(tmp_path / "elsewhere"))
    assert of_topic(examined(moved), "its settings").level == "ok"


def test_an_installed_claude_codes_version_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '2.1.330 (Claude Code)'\n")
    program.chmod(0o755)
    here = with_variables(healthy_context(tmp_path), PATH=str(program.parent))
    assert of_topic(examined(here), "claude code").text == "2.1.330 (Claude Code)"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert "does not report" in of_topic(examined(here), "claude code").text
