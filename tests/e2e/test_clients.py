"""Clients as they are, against the real server on the embedded model. tests/clients asks them for more, with chosen words."""

from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, beta_tool

from tests.clients.installed import langchain_python, node_modules
from tests.clients.test_langchain import outcomes
from tests.clients.test_typescript import run_case_at
from tests.e2e.conftest import KEY, MODEL, Journey

GREEDY: dict[str, Any] = {"model": MODEL, "max_tokens": 24, "extra_body": {"temperature": 0}}
QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def strict(server: Journey):
    """The Python client, which checks every answer against its own types."""
    url = server.base_url
    with Anthropic(base_url=url, api_key=KEY, _strict_response_validation=True) as client:
        yield client


def test_the_python_client_gets_the_same_in_every_way(strict: Anthropic) -> None:
    whole = strict.messages.create(**GREEDY, messages=[QUESTION])
    beta = strict.beta.messages.create(**GREEDY, messages=[QUESTION])
    with strict.messages.stream(**GREEDY, messages=[QUESTION]) as stream:
        streamed = stream.get_final_message()
    counted = strict.messages.count_tokens(model=MODEL, messages=[QUESTION])
    assert "Paris" in whole.content[0].text
    assert whole.content[0].text == streamed.content[0].text == beta.content[0].text
    for usage in (whole.usage, streamed.usage, beta.usage):
        assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
        assert usage.output_tokens == whole.usage.output_tokens


def test_a_thread_is_answered_as_the_whole_conversation_is(strict: Anthropic) -> None:
    thread = strict.beta.messages.thread(**GREEDY, system="Answer in few words.")
    thread.send(QUESTION)
    reply = thread.send({"role": "user", "content": "And of Italy?"})
    history = list(thread.messages)[:-1]
    whole = strict.messages.create(**GREEDY, system="Answer in few words.", messages=history)
    assert reply.content[0].text == whole.content[0].text
    assert reply.usage.cache_read_input_tokens > 0


def test_the_tool_runner_ends(strict: Anthropic) -> None:
    @beta_tool
    def get_capital(country: str) -> str:
        """Tell the capital of a country."""
        return f"the capital of {country}"

    runner = strict.beta.messages.tool_runner(
        **GREEDY, messages=[QUESTION], tools=[get_capital], max_iterations=3
    )
    assert runner.until_done().stop_reason in {"end_turn", "max_tokens", "tool_use"}


def test_a_prompt_over_the_context_is_told_with_both_numbers(strict: Anthropic) -> None:
    long = {"role": "user", "content": "word " * 20_000}
    counted = strict.messages.count_tokens(model=MODEL, messages=[long]).input_tokens
    most = strict.models.retrieve(MODEL).max_input_tokens
    with pytest.raises(anthropic.BadRequestError) as caught:
        strict.messages.create(**GREEDY, messages=[long])
    wanted = f"prompt is too long: {counted} tokens > {most} maximum"
    assert caught.value.body["error"]["message"] == wanted


def test_the_typescript_client_gets_the_same_in_every_way(server: Journey) -> None:
    seen = run_case_at(node_modules(), "embedded", server.base_url)
    assert "Paris" in seen["whole"]["content"][0]["text"]
    assert seen["streamed"]["content"][0]["text"] == seen["whole"]["content"][0]["text"]
    assert [model["id"] for model in seen["listed"]] == [MODEL, f"claude-local/{MODEL}"]
    usage = seen["whole"]["usage"]
    used = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert seen["counted"]["input_tokens"] == used


def test_langchains_standard_tests_pass_as_far_as_a_small_model_carries_them(
    server: Journey, tmp_path: Path
) -> None:
    some = "not override and (test_invoke or stream_events or test_conversation or usage)"
    url = server.base_url
    ended = outcomes(langchain_python(), tmp_path, url, "-k", some, model=MODEL)
    assert len(ended) == 6
    assert {name: outcome for name, outcome in ended.items() if outcome != "passed"} == {}
