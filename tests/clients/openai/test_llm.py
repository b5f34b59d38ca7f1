"""The real `llm` with the settings of `pensieve env --for llm`, and a scripted engine."""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from pensieve.cli.client.target import Target
from pensieve.cli.launch.programs import llm
from tests.clients.installed import llm_python
from tests.clients.serving import ToolCallingEngine, serving
from tests.server.serving import KEY
from tests.support.programs import run_program

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A function that runs `llm` with arguments and returns its output."""
    python = llm_python()
    home = tmp_path_factory.mktemp("llm")
    answer = {"city": "Rome", "degrees": 20}
    engine = ToolCallingEngine("It is 0.36.", inputs={"llm_version": {}}, structured_output=answer)
    with serving(engine, home / "server") as url:
        written = llm(Target(url, KEY, "local", is_running=True)).text
        (home / "extra-openai-models.yaml").write_text(written, encoding="utf-8")
        variables = {"PATH": os.environ["PATH"], "LLM_USER_PATH": str(home), "HOME": str(home)}

        def run(*arguments: str) -> str:
            return run_program([python, "-m", "llm", *arguments], env=variables, timeout=60).stdout

        run("keys", "set", "pensieve", "--value", KEY)
        yield run


def test_a_prompt_is_answered(run: Run) -> None:
    assert run("-m", "local", "hello").strip() == "It is 0.36."


def test_an_answer_has_its_schema(run: Run) -> None:
    output = run("-m", "local", "--schema", "city str, degrees int", "How is the weather?")
    assert json.loads(output) == {"city": "Rome", "degrees": 20}


def test_a_tool_is_called_and_its_result_answered(run: Run) -> None:
    output = run("-m", "local", "-T", "llm_version", "--td", "Which version?")
    assert output.strip() == "It is 0.36."
