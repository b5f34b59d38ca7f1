"""Run the examples of docs/clients.md unchanged, with the variables that `pensieve env` prints."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pensieve.cli.claude.environment import variables
from pensieve.cli.client.target import Target
from tests.clients.installed import langchain_python, node_modules
from tests.clients.serving import serving
from tests.server.serving import KEY
from tests.support.fakes import ScriptedEngine, says
from tests.support.programs import run_program

PAGE = Path(__file__).parent.parent.parent / "docs" / "clients.md"
ANSWER = "Because of Rayleigh."


def example(heading: str) -> str:
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
def test_an_example_prints_the_models_answer(
    heading: str, program: Callable[[], list[str]], tmp_path: Path
) -> None:
    modules = str(node_modules()) if heading == "TypeScript" else ""
    with serving(ScriptedEngine([says(ANSWER)]), tmp_path) as url:
        done = run_program(
            [*program(), example(heading)],
            env={
                "PATH": os.environ["PATH"],
                "NODE_PATH": modules,
                **variables(Target(url, KEY, "m", is_running=True)),
            },
            timeout=60,
        )
    assert ANSWER in done.stdout
