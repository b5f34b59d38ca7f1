"""The report archive has what helps, and nothing private."""

import json
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.doctor.bundle import Redaction, write
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import ok, red
from pensieve.errors import NotWritableError
from tests.doctor.checks.test_crashes import MEMORY
from tests.doctor.contexts import healthy_context, with_variables

KEY = 'q8dV3nR7"xK2mW9t\\B4yHs6LzPc1Fj'
CANARIES = {
    "PENSIEVE_API_KEY": KEY,
    "ANTHROPIC_API_KEY": "sk-ant-api03-canarycanarycanary",
    "HF_TOKEN": "hf_canarycanarycanary",
    "SOME_SECRET": "canary-in-the-environment",
    "USER": "quillfeather",
}
PROMPT = "canary prompt of the user"


@pytest.fixture
def of(tmp_path: Path) -> DoctorContext:
    return with_variables(healthy_context(tmp_path / "quillfeather", api_key=KEY), **CANARIES)


def log_of(context: DoctorContext) -> str:
    ours = "2026-11-26T01:00:00Z"
    return "\n".join(
        [
            f"{ours} INFO serving {context.home}/models with key {KEY} for quillfeather",
            f"{ours} DEBUG prompt: {PROMPT}",
            (
                f"{ours} WARNING asked http://quillfeather:hunter2@proxy:3128/ with Bearer "
                f"canary-bearer"
            ),
            f"{ours} ERROR x-api-key: canary-header",
            f"{ours} INFO POST /v1/messages: 200 in 7 ms, key canary-key, x-request-id canary:7/M",
            '{"time": "2026-11-26T01:00:00.000Z", "level": "INFO", "message": "POST: 200, key'
            ' canary-key, x-request-id canary:7/M", "client_request_id": "canary:7/M", "key":'
            ' "canary-key", "total_s": 0.1}',
            f"Traceback: {PROMPT}",
            f"{PROMPT}",
            MEMORY,
        ]
    )


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        members = archive.getmembers()
        return {each.name: archive.extractfile(each).read().decode() for each in members}


def test_a_report_holds_findings_versions_settings_and_log_and_no_canary(
    of: DoctorContext, tmp_path: Path
) -> None:
    of.settings.paths.logs.mkdir(parents=True)
    of.settings.paths.server_log.write_text(log_of(of), encoding="utf-8")
    file = tmp_path / "report.tar.gz"
    write(
        file,
        of,
        [ok("port", "7777 is free"), red("model", f"{of.home}/m is cursed", f"rm {of.home}/m")],
    )
    parts = unpacked(file)
    assert parts.keys() == {
        f"pensieve-report/{n}" for n in ("doctor.json", "server.log", "settings.json")
    }
    content = json.loads(parts["pensieve-report/doctor.json"])
    assert content["findings"][1]["text"] == "~/m is cursed"
    assert content["versions"]["tokenizers"]
    assert "kIOGPUCommandBufferCallbackErrorOutOfMemory" in parts["pensieve-report/server.log"]
    assert json.loads(parts["pensieve-report/settings.json"])["values"]["port"] == 7777
    everything = file.read_bytes().decode("latin-1") + "".join(parts.values())
    for canary in (
        *CANARIES.values(),
        json.dumps(KEY)[1:-1],
        PROMPT,
        str(of.home),
        "canary",
        "hunter2",
    ):
        assert canary not in everything, canary
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_report_is_written_without_any_earlier_run(tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    write(file, healthy_context(tmp_path / "home"), [])
    assert unpacked(file)["pensieve-report/server.log"] == "\n"


def test_an_unwritable_report_raises(tmp_path: Path) -> None:
    with pytest.raises(NotWritableError):
        write(tmp_path / "no" / "report.tar.gz", healthy_context(tmp_path), [])


def test_text_that_contains_a_user_name_is_unchanged(tmp_path: Path) -> None:
    context = with_variables(healthy_context(tmp_path), USER="a", LOGNAME="root")
    assert Redaction(context)("a cat and root") == "a cat and root"
    root = replace(healthy_context(Path("/")), environ={})
    assert Redaction(root)("/usr/lib") == "/usr/lib"


def test_a_report_replaces_a_report_and_no_other_file(of: DoctorContext, tmp_path: Path) -> None:
    report, letter = tmp_path / "report.tar.gz", tmp_path / "letter.txt"
    write(report, of, [ok("port", "free")])
    write(report, of, [red("port", "taken")])
    assert "taken" in unpacked(report)["pensieve-report/doctor.json"]
    letter.write_text("dear")
    with pytest.raises(NotWritableError, match="exists and is not a report"):
        write(letter, of, [])
    assert letter.read_text() == "dear"


def test_lines_of_a_log_in_json_are_in_a_report(of: DoctorContext, tmp_path: Path) -> None:
    line = '{"time": "2026-11-26T01:00:00.250Z", "level": "INFO", "message": "ready"}'
    debug = line.replace("INFO", "DEBUG")
    of.settings.paths.logs.mkdir(parents=True, exist_ok=True)
    of.settings.paths.server_log.write_text(f"{line}\n{debug}\nother\n", encoding="utf-8")
    write(tmp_path / "report.tar.gz", of, [])
    assert unpacked(tmp_path / "report.tar.gz")["pensieve-report/server.log"] == f"{line}\n"
