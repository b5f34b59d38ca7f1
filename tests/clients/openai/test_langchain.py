"""LangChain's standard tests of chat models, through langchain-openai and a scripted engine."""

import pytest

from tests.clients.installed import FOREIGN, LANGCHAIN_OPENAI, langchain_python
from tests.clients.serving import ToolCallingEngine, serving
from tests.clients.test_langchain import INPUTS, TEXT, TOOLS, UNSUPPORTED, outcomes

STANDARD = FOREIGN / "langchain_openai_standard.py"


# Of the tests for Anthropic's API, those of OpenAI's have no inputs in its form, but a JSON mode.
PASSING = (TEXT | TOOLS | {"test_json_mode"}) - {"test_anthropic_inputs"}
SKIPPED = (UNSUPPORTED - {"test_json_mode"}) | {"test_anthropic_inputs"}
# The package shares one asynchronous client among models, so it needs one event loop for all tests.
ONE_LOOP = ["-o", "asyncio_default_test_loop_scope=session"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    python = langchain_python(LANGCHAIN_OPENAI)
    folder = tmp_path_factory.mktemp("langchain")
    engine = ToolCallingEngine("Hello there.", inputs=INPUTS, structured_output=INPUTS["Joke"])
    with serving(engine, folder) as url:
        return outcomes(python, folder, url, *ONE_LOOP, has_tools=True, standard=STANDARD)


def test_every_standard_test_is_listed(results: dict[str, str]) -> None:
    assert results.keys() == PASSING | SKIPPED
    assert {name for name, outcome in results.items() if outcome == "skipped"} == SKIPPED


@pytest.mark.parametrize("name", sorted(PASSING))
def test_a_standard_test_passes(results: dict[str, str], name: str) -> None:
    assert results[name] == "passed", results[name]
