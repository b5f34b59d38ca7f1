"""What is done for a Mac when the environment is made; pip, Python and the system's programs only note what is asked of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.project import ROOT

PYTHON = """#!/bin/sh
echo "$@" >>asked
case $2 in *mac_ver*) echo "$CALLED" ;; esac
"""
ALIGN = "-P -m pensieve.engine.grammar.macho .venv"


def make(folder: Path, system: str, macos: str, called: str) -> tuple[list[str], str]:
    """What is asked of the environment's Python, and what is said."""
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
    ended = subprocess.run(
        ["/bin/sh", script, "a.lock"],
        env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLED": called},
        capture_output=True,
        text=True,
        check=True,
    )
    return (folder / "asked").read_text().splitlines(), ended.stderr


@pytest.mark.parametrize(
    ("system", "macos", "is_aligned"),
    [("Linux", "", False), ("Darwin", "26.4", False), ("Darwin", "27.0", True)],
)
def test_libraries_are_aligned_from_macos_27_on_after_they_are_installed(
    tmp_path: Path, system: str, macos: str, *, is_aligned: bool
) -> None:
    asked, said = make(tmp_path, system, macos, called=macos.partition(".")[0])
    assert (ALIGN in asked) == is_aligned
    if is_aligned:
        assert asked.index(ALIGN) > max(n for n, line in enumerate(asked) if "pip install" in line)
    assert "older macOS" not in said


def test_a_python_that_takes_macos_26_for_16_is_told(tmp_path: Path) -> None:
    _, said = make(tmp_path, "Darwin", "26.4", called="16")
    assert "it calls macOS 26 16" in said
    assert "brew install python@3.14" in said
