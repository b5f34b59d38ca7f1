"""The `openai` package's own tests of its types, made for a mock server, against a real server.

They send every parameter at once, and ids that no server has: what must fail is listed with the
reason.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable

import pytest

from tests.clients.installed import FOREIGN, openai_source
from tests.clients.serving import CachingEngine, serving
from tests.server.serving import KEY

FILES = (
    *("chat/test_completions.py", "test_completions.py", "test_embeddings.py", "test_models.py"),
    *("test_responses.py", "responses/test_input_items.py", "responses/test_input_tokens.py"),
)


# The forms in which a method is tested.
FORMS = ("method_{}", "raw_response_{}", "streaming_response_{}")
WITH_ALL = "method_{}_with_all_params"


def each(methods: Iterable[str], error: str, *forms: str) -> dict[str, str]:
    names = (method.rpartition(".") for method in methods)
    return {f"{module}.{form.format(name)}": error for module, _, name in names for form in forms}


NOT_STORED = each(
    [
        *("chat.completions.delete", "chat.completions.retrieve", "chat.completions.update"),
        *("responses.cancel", "responses.delete", "responses.retrieve_overload_1"),
        "responses.input_items.list",
    ],
    "404 not_found",
    *FORMS,
)
NOT_HERE = (
    each(["chat.completions.list", "models.delete"], "405 None", *FORMS)
    | each(["responses.compact"], "404 not_found", *FORMS)
    | each(["embeddings.create"], "400 model", *FORMS, WITH_ALL)
    | each(["models.retrieve"], "404 model_not_found", *FORMS)
    | each(["responses.retrieve_overload_2"], "400 stream", *FORMS)
    # Without any input.
    | each(["responses.create_overload_1", "responses.create_overload_2"], "400 input", *FORMS)
)
# The first of the parameters that are refused.
REFUSED = {
    "chat.completions.method_create_with_all_params_overload_1": "400 logit_bias",
    "chat.completions.method_create_with_all_params_overload_2": "400 logit_bias",
    "chat.completions.method_list_with_all_params": "405 None",
    "completions.method_create_with_all_params_overload_1": "400 logit_bias",
    "completions.method_create_with_all_params_overload_2": "400 logit_bias",
    "responses.method_compact_with_all_params": "404 not_found",
    "responses.method_create_with_all_params_overload_1": "400 previous_response_not_found",
    "responses.method_create_with_all_params_overload_2": "400 previous_response_not_found",
    "responses.method_retrieve_with_all_params_overload_1": "400 stream",
    "responses.method_retrieve_with_all_params_overload_2": "400 stream",
    "responses.input_items.method_list_with_all_params": "400 limit",
    "responses.input_tokens.method_count_with_all_params": "400 previous_response_not_found",
}
FAILING = NOT_STORED | NOT_HERE | REFUSED
PASSING = 28


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outcome of each test by `file.name`: "passed", or its error."""
    source = openai_source()
    folder = tmp_path_factory.mktemp("contract")
    report = folder / "report.xml"
    with serving(CachingEngine("Hello."), folder / "home") as url:
        done = subprocess.run(
            [
                *[sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "openai_contract"],
                *["-c", os.devnull, f"--rootdir={source}", "-p", "no:cacheprovider"],
                *["--tb=native", "-k", "strict and not Async", f"--junitxml={report}"],
                *(str(source / "tests" / "api_resources" / file) for file in FILES),
            ],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(FOREIGN),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PENSIEVE_TEST_URL": url,
                "PENSIEVE_TEST_KEY": KEY,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert report.exists(), done.stdout + done.stderr
    return dict(_outcome(case) for case in ET.parse(report).iter("testcase"))


def _outcome(case: ET.Element) -> tuple[str, str]:
    module = case.attrib["classname"].removeprefix("tests.api_resources.").rpartition(".")[0]
    name = case.attrib["name"].removeprefix("test_").removesuffix("[strict]")
    return f"{module.replace('test_', '')}.{name}", _error(case)


def _error(case: ET.Element) -> str:
    faults = [fault for kind in ("failure", "error", "skipped") for fault in case.iter(kind)]
    return faults[0].attrib["message"] if faults else "passed"


def test_every_test_passes_or_fails_as_listed(outcomes: dict[str, str]) -> None:
    failed = {name: outcome for name, outcome in outcomes.items() if outcome != "passed"}
    assert failed == FAILING
    assert len(outcomes) - len(failed) == PASSING
