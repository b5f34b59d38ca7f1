"""Findings that concern coding agents and OpenAI's variables."""

from pathlib import Path

import pytest

from pensieve.doctor.checks.agents import AGENTS, Agent, check
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from tests.doctor.contexts import healthy_context, of_topic, with_variables

HERE = "http://127.0.0.1:7777/v1"
REAL_KEY = "sk-proj-" + "A1b2C3d4" * 8
OURS = "pensieve-local-key"


def installed(home: Path, *names: str) -> DoctorContext:
    """Return a healthy machine with these commands."""
    folder = home / "bin"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {name} 1.2.3\n")
        (folder / name).chmod(0o755)
    return with_variables(healthy_context(home), PATH=str(folder))


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def warnings(context: DoctorContext, *agents: Agent) -> list[Finding]:
    found = list(check(context, agents or AGENTS))
    return [finding for finding in found if finding.level != "ok"]


def test_agents_that_are_not_installed_are_one_line(tmp_path: Path) -> None:
    (finding,) = check(healthy_context(tmp_path))
    assert finding.level == "ok"
    assert "codex, opencode, aider, zed" in finding.text


def test_an_installed_agents_version_is_reported(tmp_path: Path) -> None:
    findings = list(check(installed(tmp_path, "codex")))
    assert of_topic(findings, "codex").text == "codex 1.2.3"
    assert of_topic(findings, "agents").text.startswith("not installed: opencode, aider, zed;")


@pytest.mark.parametrize(
    ("url", "key", "level"),
    [
        (HERE, OURS, "ok"),
        ("http://localhost:7777", OURS, "ok"),
        (HERE, "", "ok"),
        (HERE, REAL_KEY, "warning"),
        ("http://127.0.0.1:8080/v1", "", "warning"),
        ("https://api.example.com/v1", REAL_KEY, "ok"),
        ("https://api.example.com/v1", OURS, "warning"),
        ("http://[::1", "", "ok"),
    ],
)
@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_openais_variables_are_judged_together(
    tmp_path: Path, name: str, url: str, key: str, level: str
) -> None:
    context = with_variables(healthy_context(tmp_path), **{name: url, "OPENAI_API_KEY": key})
    finding = of_topic(list(check(context)), "openai")
    assert finding.level == level
    assert REAL_KEY not in finding.text
    assert level == "ok" or finding.fix == 'eval "$(pensieve env --for openai)"'


def test_a_key_of_openais_alone_is_no_finding(tmp_path: Path) -> None:
    context = with_variables(healthy_context(tmp_path), OPENAI_API_KEY=REAL_KEY)
    assert [finding.topic for finding in check(context)] == ["agents"]


STALE = '[model_providers.pensieve]\nbase_url = "http://127.0.0.1:8080/v1"\n'
CURRENT = STALE.replace("8080", "7777")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("codex", ".codex/config.toml"),
        ("codex", ".codex/pensieve.config.toml"),
        ("opencode", ".config/opencode/opencode.json"),
        ("opencode", "work/opencode.json"),
        ("aider", ".aider.conf.yml"),
        ("zed", ".config/zed/settings.json"),
    ],
)
def test_a_file_with_another_port_is_a_warning(tmp_path: Path, name: str, file: str) -> None:
    context = installed(tmp_path, name)
    path = write(tmp_path / file, STALE)
    (finding,) = warnings(context)
    assert finding.topic == name
    assert str(path) in finding.text
    assert "8080" in finding.text
    assert finding.fix == f"pensieve env --for {name}"
    write(path, CURRENT)
    assert warnings(context) == []
    write(path, STALE.replace("pensieve", "other"))
    assert warnings(context) == []


@pytest.mark.parametrize(
    ("name", "variable", "file"),
    [
        ("codex", "CODEX_HOME", "config.toml"),
        ("zed", "XDG_CONFIG_HOME", "zed/settings.json"),
    ],
)
def test_a_moved_configuration_is_found(
    tmp_path: Path, name: str, variable: str, file: str
) -> None:
    path = write(tmp_path / "moved" / file, STALE)
    context = with_variables(installed(tmp_path, name), **{variable: str(tmp_path / "moved")})
    (finding,) = warnings(context)
    assert str(path) in finding.text


def test_a_managed_file_that_names_a_model_is_a_warning(tmp_path: Path) -> None:
    file = write(tmp_path / "managed.toml", 'model_provider = "theirs"\n')
    platforms = {"darwin": (file,), "linux": (file,)}
    (finding,) = warnings(installed(tmp_path, "codex"), Agent("codex", (), (), platforms))
    assert f"{file} sets model_provider" in finding.text
    write(file, 'sandbox_mode = "read-only"\n')
    assert warnings(installed(tmp_path / "b", "codex"), Agent("codex", (), (), platforms)) == []


@pytest.mark.parametrize("place", [".env", "work/.env"])
def test_what_aider_reads_over_the_shell_is_a_warning(tmp_path: Path, place: str) -> None:
    context = installed(tmp_path, "aider")
    file = write(tmp_path / place, f"OPENAI_API_KEY={REAL_KEY}\nexport AIDER_MODEL=sonnet\n")
    (finding,) = warnings(context)
    assert f"{file} sets AIDER_MODEL, which" in finding.text
    assert warnings(healthy_context(tmp_path)) == []


def test_a_file_that_is_no_text_is_no_problem(tmp_path: Path) -> None:
    context = installed(tmp_path, "codex")
    write(tmp_path / ".codex" / "config.toml", "").write_bytes(b"\xff\xfe\x00pensieve")
    assert warnings(context) == []
