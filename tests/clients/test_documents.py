"""The examples of docs/clients.md, run as they are written: with the variables that
`pensieve env` prints, against the scripted engine behind a real server.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pensieve.cli.claude.environment import variables
from pensieve.cli.client.target import Target
from tests.clients.installed import langchain_python, node_modules
from tests.clients.serving import serving
from tests.fakes import ScriptedEngine, says
from tests.server.serving import KEY

PAGE = Path(__file__).parent.parent.parent / "docs" / "clients.md"
SAID = "Because of Rayleigh."


def example(heading: str) -> str:
    """The code under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    return re.search(r"```\w+\n(.*?)```", section, re.DOTALL)[1]


def curl() -> list[str]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return ["sh", "-c"]


@pytest.mark.parametrize(
    ("heading", "program"),
    [
        ("Python", lambda: [sys.executable, "-c"]),
        ("TypeScript", lambda: ["node", "-e"]),
        ("LangChain", lambda: [str(langchain_python()), "-c"]),
        ("curl", curl),
    ],
)
def test_an_example_says_what_the_model_says(
    heading: str, program: Callable[[], list[str]], tmp_path: Path
) -> None:
    modules = str(node_modules()) if heading == "TypeScript" else ""
    with serving(ScriptedEngine([says(SAID)]), tmp_path) as url:
        done = subprocess.run(
            [*program(), example(heading)],
            env={
                "PATH": os.environ["PATH"],
                "NODE_PATH": modules,
                **variables(Target(url, KEY, "m", is_running=True)),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert SAID in done.stdout
