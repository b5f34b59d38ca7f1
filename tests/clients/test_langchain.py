"""LangChain's standard tests of chat models, through langchain-anthropic and a scripted engine.

They run in one process of a separate environment; each is a case here. The tests that run and the
unsupported ones are listed, so that none is left out by accident.
"""

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.clients.installed import FOREIGN, langchain_python
from tests.clients.serving import ToolCallingEngine, serving
from tests.server.serving import KEY

STANDARD = FOREIGN / "langchain_standard.py"

TEXT = {
    "test_invoke",
    "test_ainvoke",
    "test_stream[model0]",
    "test_stream[model1]",
    "test_astream[model0]",
    "test_astream[model1]",
    "test_stream_events_v3",
    "test_astream_events_v3",
    "test_invoke_with_model_override",
    "test_ainvoke_with_model_override",
    "test_stream_with_model_override",
    "test_astream_with_model_override",
    "test_batch",
    "test_abatch",
    "test_conversation",
    "test_double_messages_conversation",
    "test_usage_metadata",
    "test_usage_metadata_streaming",
    "test_stop_sequence",
    "test_anthropic_inputs",
    "test_message_with_name",
    "test_no_overrides_DO_NOT_OVERRIDE",
}
TOOLS = {
    "test_tool_calling[model0]",
    "test_tool_calling[model1]",
    "test_tool_calling_async",
    "test_bind_runnables_as_tools",
    "test_tool_message_histories_string_content",
    "test_tool_message_histories_list_content",
    "test_tool_choice",
    "test_tool_calling_with_no_arguments",
    "test_tool_message_error_status",
    "test_structured_few_shot_examples",
    "test_structured_output[pydantic]",
    "test_structured_output[typeddict]",
    "test_structured_output[json_schema]",
    "test_structured_output_async[pydantic]",
    "test_structured_output_async[typeddict]",
    "test_structured_output_async[json_schema]",
    "test_structured_output_pydantic_2_v1",
    "test_structured_output_optional_param",
    "test_agent_loop[model0]",
    "test_agent_loop[model1]",
    "test_unicode_tool_call_integration",
}
# Images and audio; PDFs that the test fetches from the web; OpenAI's JSON mode; a recording of the
# network.
UNSUPPORTED = {
    "test_image_inputs",
    "test_image_tool_message",
    "test_audio_inputs",
    "test_pdf_inputs",
    "test_pdf_tool_message",
    "test_json_mode",
    "test_stream_time",
}
# The inputs that the tests expect, by their tool.
INPUTS: dict[str, dict[str, object]] = {
    "magic_function": {"input": 3},
    "magic_function_no_args": {},
    "get_weather": {"location": "San Francisco"},
    "greeting_generator": {"answer_style": "pirate"},
    "my_adder_tool": {"a": 1, "b": 2},
    "unicode_customer": {"customer_name": "…", "description": "A company"},
    "Joke": {"setup": "Why do cats purr?", "punchline": "Because they can."},
    "JokeDict": {"setup": "Why do cats purr?", "punchline": "Because they can."},
}


def outcomes(
    python: Path,
    folder: Path,
    url: str,
    *more: str,
    model: str = "m",
    has_tools: bool = False,
    standard: Path = STANDARD,
) -> dict[str, str]:
    """Return the outcome of each test by class and name: "passed", "skipped", or its failure."""
    report = folder / "report.xml"
    isolation = ["-c", os.devnull, f"--rootdir={FOREIGN}", f"--confcutdir={FOREIGN}"]
    plugins = ["-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    pytest_command = [python, "-m", "pytest", "-q", *isolation, *plugins, f"--junitxml={report}"]
    done = subprocess.run(
        [*pytest_command, *more, standard],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PENSIEVE_TEST_URL": url,
            "PENSIEVE_TEST_KEY": KEY,
            "PENSIEVE_TEST_MODEL": model,
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"PENSIEVE_TEST_TOOLS": "1"} if has_tools else {}),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    return {_name(case): _outcome(case) for case in ET.parse(report).iter("testcase")}


def _name(case: ET.Element) -> str:
    return f"{case.attrib['classname'].rpartition('.')[2]}.{case.attrib['name']}"


def _outcome(case: ET.Element) -> str:
    if case.find("skipped") is not None:
        return "skipped"
    faults = [fault for kind in ("failure", "error") for fault in case.iter(kind)]
    return "\n".join(fault.text or "" for fault in faults) or "passed"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    python = langchain_python()
    folder = tmp_path_factory.mktemp("langchain")
    engine = ToolCallingEngine("Hello there.", inputs=INPUTS, structured_output=INPUTS["Joke"])
    with serving(engine, folder) as url:
        return outcomes(python, folder, url, has_tools=True)


def test_every_standard_test_is_listed(results: dict[str, str]) -> None:
    assert results.keys() == {f"TestText.{name}" for name in TEXT | TOOLS | UNSUPPORTED}
    skipped = {name for name, outcome in results.items() if outcome == "skipped"}
    assert skipped == {f"TestText.{name}" for name in UNSUPPORTED}


@pytest.mark.parametrize("name", sorted(TEXT | TOOLS))
def test_a_standard_test_passes(results: dict[str, str], name: str) -> None:
    outcome = results[f"TestText.{name}"]
    assert outcome == "passed", outcome
