"""`pensieve doctor`: streams, exit code, JSON and archive."""

import json
import os
import sys
import tarfile
from pathlib import Path

import jsonschema
import pytest

from pensieve.cli.app import run
from pensieve.cli.commands.server.doctor import format_finding, summary_line
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.paths import Paths, under_home
from tests.cli.program import pensieve

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "is_healthy", "findings"],
    "properties": {
        "version": {"type": "string"},
        "is_healthy": {"type": "boolean"},
        "findings": {
            "type": "array",
            "minItems": 10,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["topic", "level", "text", "fix"],
                "properties": {
                    "topic": {"type": "string", "minLength": 1},
                    "level": {"enum": ["ok", "warning", "red"]},
                    "text": {"type": "string", "minLength": 1},
                    "fix": {"type": "string"},
                },
            },
        },
    },
}
TOPICS = {
    "pensieve", "python", "machine", "mlx", "memory", "context", "settings", "key", "files",
    "model", "disk", "port", "server", "log",
    "base url", "claude code", "its settings",
}  # fmt: skip
AGENT_TOPICS = {"openai", "agents", "codex", "opencode", "aider", "zed"}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in [n for n in os.environ if n.startswith(("PENSIEVE_", "ANTHROPIC_", "CLAUDE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "pensieve"))
    monkeypatch.setenv("PENSIEVE_DEVICE", "cpu")
    monkeypatch.setenv("PENSIEVE_MODEL", "smollm2-135m")
    monkeypatch.chdir(tmp_path)
    return under_home(tmp_path / "pensieve")


def test_doctor_json_without_server_and_model(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, SCHEMA)
    assert {finding["topic"] for finding in report["findings"]} - AGENT_TOPICS == TOPICS
    assert code == (0 if report["is_healthy"] else 1)
    assert not paths.state.exists()


def test_red_finding_exits_1_and_shows_its_fix(tmp_path: Path, paths: Paths) -> None:
    paths.config_file.parent.mkdir(parents=True)
    paths.config_file.write_text("model = [unfinished\n")
    done = pensieve("doctor", home=tmp_path, PENSIEVE_DEVICE="cpu", COLUMNS="80")
    assert done.returncode == 1
    out = done.stdout.decode()
    assert b"Traceback" not in done.stderr
    assert "\x1b" not in out
    lines = out.splitlines()
    whole = (str(tmp_path), sys.executable)  # paths are not wrapped
    wrapped = [line for line in lines if not any(path in line for path in whole)]
    assert [line for line in wrapped if len(line) > 80] == []
    at = next(number for number, line in enumerate(lines) if line.startswith("RED   settings"))
    assert "pensieve config reset" in "\n".join(lines[at : at + 6])


def test_bundle_is_written_in_addition_to_the_output(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["doctor", "--bundle", str(tmp_path / "r.tar.gz"), "--json"])
    out, err = capsys.readouterr()
    jsonschema.validate(json.loads(out), SCHEMA)
    assert "Check it before you send it" in err
    with tarfile.open(tmp_path / "r.tar.gz") as archive:
        assert "pensieve-report/doctor.json" in archive.getnames()


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        ([ok("a", "b")], "No problems found."),
        ([red("a", "b")], "1 problem."),
        ([red("a", "b"), red("a", "b"), warning("a", "b")], "2 problems, 1 warning."),
        ([warning("a", "b"), warning("a", "b")], "No problems, 2 warnings."),
    ],
)
def test_doctor_ends_with_a_summary(findings: list[Finding], says: str) -> None:
    assert summary_line(findings).startswith(says)


def test_a_finding_is_wrapped_and_its_commands_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = "chmod -R go= " + "/a/long/folder" * 8
    first, *rest = format_finding(red("files", "word " * 40, f"{command}\nsecond")).splitlines()
    assert first.startswith("RED   files          word word")
    assert all(len(line) <= 80 for line in (first, *rest) if "chmod" not in line)
    assert [line.strip() for line in rest[-2:]] == [command, "second"]
