"""A pytest plugin in place of the `conftest.py` of the `openai` package's own tests.

They get a client of PENSIEVE_TEST_URL, and need no package but `openai` and `rich`.
"""

import os
from collections.abc import Generator, Iterator

import pytest
from openai import APIStatusError, OpenAI


@pytest.fixture(scope="session")
def client(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{os.environ['PENSIEVE_TEST_URL']}/v1",
        api_key=os.environ["PENSIEVE_TEST_KEY"],
        max_retries=0,
        _strict_response_validation=request.param,
    ) as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report an error of the API by its status, and its code or the parameter's name."""
    report = yield
    if call.excinfo and isinstance(error := call.excinfo.value, APIStatusError):
        report.longrepr = f"{error.status_code} {error.code or error.param}"
    return report
