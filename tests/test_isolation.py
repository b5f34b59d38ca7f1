"""The user's Python variables affect neither the program nor its children."""

import subprocess
import sys
from pathlib import Path

from pensieve.isolation import python, python_variables
from tests.cli.program import PROGRAM, environment

# Each changes a program's output or prevents its start.
MEAN = {
    "PYTHONOPTIMIZE": "2",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONDEVMODE": "1",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONINTMAXSTRDIGITS": "640",
    "PYTHONMALLOC": "debug",
    "PYTHONHASHSEED": "0",
    "PYTHONTRACEMALLOC": "3",
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONBREAKPOINT": "os.abort",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONPYCACHEPREFIX": "/dev/null/none",
    "PYTHONUSERBASE": "/dev/null/none",
    "PYTHONCASEOK": "1",
    "PYTHON_COLORS": "1",
    "PYTHON_CPU_COUNT": "1",
}


def run(command: list[str], home: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        env=environment(home, **variables),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def foreign_packages(folder: Path, *names: str) -> Path:
    """Packages of another Python."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('built for another Python')")
    return folder


def test_foreign_python_variables_do_not_change_a_commands_output(
    tmp_path: Path,
) -> None:
    path = foreign_packages(tmp_path / "lib", "cyclopts", "pydantic", "attrs", "tomllib", "difflib")
    variables = {**MEAN, "PYTHONPATH": str(path), "PYTHONSTARTUP": str(tmp_path / "none.py")}
    command = [*PROGRAM, "start", "--help"]
    plain, foreign = run(command, tmp_path), run(command, tmp_path, **variables)
    assert (plain.returncode, plain.stderr) == (0, b"")
    assert (foreign.returncode, foreign.stdout, foreign.stderr) == (0, plain.stdout, b"")
    assert b"Start the server in the background" in foreign.stdout


def test_a_child_gets_no_python_variables_and_no_working_folder_on_its_path(tmp_path: Path) -> None:
    foreign_packages(tmp_path, "json")
    arguments = ("-c", "import json, sys; print(sys.flags.optimize, sys.flags.safe_path)")
    ended = run(python(*arguments), tmp_path, PYTHONPATH=str(tmp_path), PYTHONOPTIMIZE="2")
    assert ended.stdout == b"0 True\n"


def test_an_isolated_program_does_not_restart(tmp_path: Path) -> None:
    """Otherwise it would restart forever."""
    ended = run([sys.executable, "-E", "-m", "pensieve", "--version"], tmp_path, PYTHONPATH="/x")
    assert ended.stdout.startswith(b"pensieve ")


def test_empty_or_harmless_variables_do_not_cause_a_restart() -> None:
    environ = {"PYTHONPATH": "", "PYTHONUNBUFFERED": "1", "PYTHON": "/usr/bin/python3", "HOME": "/"}
    assert python_variables(environ) == []
    assert python_variables({**environ, "PYTHONHOME": "/x", "PYTHON_GIL": "1"}) == [
        "PYTHONHOME",
        "PYTHON_GIL",
    ]
