"""The Mac-specific steps of make-environment.sh; pip, Python and system programs are stand-ins."""

import os
import shutil
from pathlib import Path

import pytest

from tests.packaging.project import ROOT
from tests.support.programs import run_program

PYTHON = """#!/bin/sh
echo "$@" >>calls
case $2 in *mac_ver*) echo "$MACOS_OF_PYTHON" ;; esac
"""
ALIGN = "-P -m pensieve.engine.grammar.macho .venv"


def make(folder: Path, system: str, macos: str, macos_of_python: str) -> tuple[list[str], str]:
    """Run the script; return the calls of the environment's Python and standard error."""
    programs = {
        ".venv/bin/python": PYTHON,
        "bin/uname": f"#!/bin/sh\necho {system}\n",
        "bin/sw_vers": f"#!/bin/sh\necho {macos}\n",
    }
    for name, text in programs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "packaging").mkdir()
    script = shutil.copy(ROOT / "packaging" / "make-environment.sh", folder / "packaging")
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    variables = {"PATH": path, "MACOS_OF_PYTHON": macos_of_python}
    done = run_program(["/bin/sh", script, "a.lock"], env=variables)
    return (folder / "calls").read_text().splitlines(), done.stderr


@pytest.mark.parametrize(
    ("system", "macos", "is_aligned"),
    [("Linux", "", False), ("Darwin", "26.4", False), ("Darwin", "27.0", True)],
)
def test_libraries_are_aligned_after_installation_from_macos_27(
    tmp_path: Path, system: str, macos: str, *, is_aligned: bool
) -> None:
    calls, errors = make(tmp_path, system, macos, macos_of_python=macos.partition(".")[0])
    assert (ALIGN in calls) == is_aligned
    if is_aligned:
        assert calls.index(ALIGN) > max(n for n, line in enumerate(calls) if "pip install" in line)
    assert "older macOS" not in errors


def test_a_python_built_for_an_older_macos_causes_a_warning(tmp_path: Path) -> None:
    _, errors = make(tmp_path, "Darwin", "26.4", macos_of_python="16")
    assert "it reports macOS 26 as 16" in errors
    assert "brew install python@3.14" in errors
