"""Findings from macOS's reports of crashes in Metal and of panics."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from pensieve.doctor.checks.crash_reports import CRASH_FOLDER, METAL_QUEUE, check
from pensieve.doctor.finding import Finding
from tests.doctor.checks.test_crashes import PANIC, WATCHDOGD

RECORDED = Path(__file__).parents[2] / "recorded" / "Python-2026-11-26-020000.ips"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    folder = tmp_path / CRASH_FOLDER
    folder.mkdir(parents=True)
    return Path(shutil.copy(RECORDED, folder))


def examined(home: Path) -> list[Finding]:
    return list(check(home, home / "panics"))


def test_a_mac_without_reports_has_no_findings(tmp_path: Path) -> None:
    assert examined(tmp_path) == []


def test_a_crash_in_metal_is_reported_with_its_cause(tmp_path: Path, report: Path) -> None:
    (finding,) = examined(tmp_path)
    assert (finding.topic, finding.level) == ("crash report", "warning")
    assert report.name in finding.text
    assert "the GPU ran out of memory" in finding.text
    assert "memory_gb" in finding.fix


def test_a_crash_without_metals_message_refers_to_the_log(tmp_path: Path, report: Path) -> None:
    report.write_text(report.read_text().replace("Insufficient Memory (00000008:", "("))
    report.write_text(report.read_text().replace("CallbackErrorOutOfMemory", ""))
    (finding,) = examined(tmp_path)
    assert finding.fix == "pensieve logs -n 200"


def test_other_old_or_unreadable_crashes_are_ignored(tmp_path: Path, report: Path) -> None:
    whole = report.read_text()
    for text in (whole.replace(METAL_QUEUE, "com.apple.other"), "", "{}\n[]", "{}\n{", whole[:900]):
        report.write_text(text)
        assert examined(tmp_path) == []
    report.write_text(whole)
    assert len(examined(tmp_path)) == 1
    os.utime(report, (1e9, 1e9))
    assert examined(tmp_path) == []


@pytest.mark.parametrize("panic", [PANIC, WATCHDOGD])
def test_a_panic_by_memory_or_gpu_is_red(panic: str, tmp_path: Path) -> None:
    (tmp_path / "panics").mkdir()
    (tmp_path / "panics" / "panic-full-2026-02-19-125928.0002.panic").write_text(panic)
    (finding,) = examined(tmp_path)
    assert (finding.topic, finding.level) == ("panic", "red")


def test_unreadable_panic_reports_are_mentioned(tmp_path: Path) -> None:
    def refuse(folder: Path) -> Iterable[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    (finding,) = check(tmp_path, tmp_path / "panics", refuse)
    assert finding.level == "ok"
    assert f"sudo ls {tmp_path / 'panics'}" in finding.text
