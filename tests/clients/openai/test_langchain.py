"""LangChain's standard tests of chat models, through both APIs of langchain-openai and a scripted
engine.
"""

import pytest

from tests.clients.installed import FOREIGN, langchain_python
from tests.clients.serving import ToolCallingEngine, serving
from tests.clients.test_langchain import INPUTS, TEXT, TOOLS, UNSUPPORTED, outcomes

STANDARD = FOREIGN / "langchain_openai_standard.py"
APIS = ("TestChat", "TestResponses")
# Of the tests for Anthropic's API, those of OpenAI's have no inputs in its form, but a JSON mode.
PASSING = (TEXT | TOOLS | {"test_json_mode"}) - {"test_anthropic_inputs"}
SKIPPED = (UNSUPPORTED - {"test_json_mode"}) | {"test_anthropic_inputs"}
# The package shares one asynchronous client among models, so it needs one event loop for all tests.
ONE_LOOP = ["-o", "asyncio_default_test_loop_scope=session"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    python = langchain_python()
    folder = tmp_path_factory.mktemp("langchain")
    engine = ToolCallingEngine("Hello there.", inputs=INPUTS, structured_output=INPUTS["Joke"])
    with serving(engine, folder) as url:
        return outcomes(python, folder, url, *ONE_LOOP, has_tools=True, standard=STANDARD)


def test_every_standard_test_is_listed(results: dict[str, str]) -> None:
    assert results.keys() == {f"{api}.{name}" for api in APIS for name in PASSING | SKIPPED}
    skipped = {name for name, outcome in results.items() if outcome == "skipped"}
    assert skipped == {f"{api}.{name}" for api in APIS for name in SKIPPED}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", sorted(PASSING))
def test_a_standard_test_passes(results: dict[str, str], name: str, api: str) -> None:
    outcome = results[f"{api}.{name}"]
    assert outcome == "passed", outcome
