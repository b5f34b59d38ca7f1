"""Real clients against a real server with the embedded model; tests/clients covers more cases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from tests.clients.installed import langchain_python, node_modules
from tests.clients.test_langchain import outcomes
from tests.clients.test_typescript import run_case_at
from tests.e2e.installation import KEY, MODEL, Installation

GREEDY: dict[str, Any] = {"model": MODEL, "max_tokens": 24, "extra_body": {"temperature": 0}}
QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def client(server: Installation) -> Iterator[Anthropic]:
    """Validates every answer against its own types."""
    url = server.base_url
    with Anthropic(base_url=url, api_key=KEY, _strict_response_validation=True) as client:
        yield client


def test_python_answers_are_equal_whole_streamed_and_beta(client: Anthropic) -> None:
    whole = client.messages.create(**GREEDY, messages=[QUESTION])
    beta = client.beta.messages.create(**GREEDY, messages=[QUESTION])
    with client.messages.stream(**GREEDY, messages=[QUESTION]) as stream:
        deltas = list(stream.text_stream)
        streamed = stream.get_final_message()
    counted = client.messages.count_tokens(model=MODEL, messages=[QUESTION])
    assert "Paris" in whole.content[0].text
    assert whole.content[0].text == streamed.content[0].text == beta.content[0].text
    assert len(deltas) > 2
    assert "".join(deltas) == whole.content[0].text
    assert streamed.stop_reason == whole.stop_reason
    for usage in (whole.usage, streamed.usage, beta.usage):
        assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
        assert usage.output_tokens == whole.usage.output_tokens


def test_a_thread_and_its_whole_conversation_get_the_same_answer(client: Anthropic) -> None:
    thread = client.beta.messages.thread(**GREEDY, system="Answer in few words.")
    thread.send(QUESTION)
    reply = thread.send({"role": "user", "content": "And of Italy?"})
    history = list(thread.messages)[:-1]
    whole = client.messages.create(**GREEDY, system="Answer in few words.", messages=history)
    assert reply.content[0].text == whole.content[0].text
    assert reply.usage.cache_read_input_tokens > 0


def test_an_error_for_a_long_prompt_has_both_token_counts(client: Anthropic) -> None:
    long = {"role": "user", "content": "word " * 20_000}
    counted = client.messages.count_tokens(model=MODEL, messages=[long]).input_tokens
    max_tokens = client.models.retrieve(MODEL).max_input_tokens
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**GREEDY, messages=[long])
    expected = f"prompt is too long: {counted} tokens > {max_tokens} maximum"
    assert caught.value.body["error"]["message"] == expected


def test_typescript_answers_are_equal_whole_and_streamed(server: Installation) -> None:
    result = run_case_at(node_modules(), "embedded", server.base_url)
    assert "Paris" in result["whole"]["content"][0]["text"]
    assert result["streamed"]["content"][0]["text"] == result["whole"]["content"][0]["text"]
    assert [model["id"] for model in result["listed"]] == [MODEL, f"claude-local/{MODEL}"]
    usage = result["whole"]["usage"]
    used = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert result["counted"]["input_tokens"] == used


def test_langchains_standard_tests_for_text_pass(server: Installation, tmp_path: Path) -> None:
    selection = "stream_events_v3 and not astream or test_conversation or usage_metadata_streaming"
    url = server.base_url
    results = outcomes(langchain_python(), tmp_path, url, "-k", selection, model=MODEL)
    assert len(results) == 3
    assert {name: outcome for name, outcome in results.items() if outcome != "passed"} == {}
