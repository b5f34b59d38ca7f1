"""OpenAI's Python client against a real server with the embedded model.

A model this small does not call tools by itself, so that calls are required. PENSIEVE_ROUNDS
multiplies the number of calls.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from openai import OpenAI
from openai.types import CompletionUsage
from pydantic_core import from_json

from tests.e2e.installation import KEY, MODEL, Installation
from tests.e2e.openai.grammars import GRAMMARS
from tests.support.pdfs import base64_of, pdf_of

GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_completion_tokens": 24}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
ROUNDS = int(os.environ.get("PENSIEVE_ROUNDS", "1"))
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "sky": {"enum": ["clear", "cloudy"]},
        "degrees": {"type": "integer", "minimum": -50, "maximum": 60},
    },
    "required": ["city", "sky", "degrees"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}},
    {"type": "function", "function": {"name": "now"}},
]


@pytest.fixture
def client(server: Installation) -> Iterator[OpenAI]:
    """Validates every answer against its own types."""
    url = f"{server.base_url}/v1"
    with OpenAI(base_url=url, api_key=KEY, _strict_response_validation=True) as client:
        yield client


def test_a_pdf_is_in_the_prompt(client: OpenAI) -> None:
    file = {"filename": "fact.pdf", "file_data": base64_of(pdf_of("The code word is swordfish."))}
    content = [{"type": "file", "file": file}, {"type": "text", "text": "The code word?"}]
    messages: list[Any] = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(**GREEDY, messages=messages)
    assert "swordfish" in answer.choices[0].message.content.lower()


def test_answers_are_equal_whole_and_streamed(client: OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, messages=[QUESTION])
    with client.chat.completions.stream(
        **GREEDY, messages=[QUESTION], stream_options={"include_usage": True}
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        streamed = stream.get_final_completion()
    assert "Paris" in whole.choices[0].message.content
    assert whole.choices[0].message.content == "".join(pieces)
    assert whole.choices[0].finish_reason == streamed.choices[0].finish_reason
    assert whole.usage.prompt_tokens == streamed.usage.prompt_tokens
    assert len(pieces) > 2


def test_a_seed_repeats_the_answer(client: OpenAI) -> None:
    def answer(seed: int) -> str | None:
        call = GREEDY | {"temperature": 1, "seed": seed, "max_completion_tokens": 8}
        return (
            client.chat.completions.create(**call, messages=[QUESTION]).choices[0].message.content
        )

    assert answer(5) == answer(5)
    assert len({answer(seed) for seed in range(3)}) > 1


def test_choices_have_their_own_seeds_and_logprobs(client: OpenAI) -> None:
    call: dict[str, Any] = {
        "model": MODEL,
        "messages": [QUESTION],
        "max_tokens": 6,
        "logprobs": True,
        "top_logprobs": 2,
        "frequency_penalty": 0.5,
    }
    lone = [client.chat.completions.create(**call, seed=seed).choices[0] for seed in (8, 9)]
    both = client.chat.completions.create(**call, seed=8, n=2)
    texts = [choice.message.content for choice in both.choices]
    assert texts == [choice.message.content for choice in lone]
    assert both.usage.completion_tokens == 12
    pieces = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**call, seed=8, n=2, stream=True):
        (choice,) = chunk.choices
        if choice.delta.content:
            reported = [byte for one in choice.logprobs.content for byte in one.bytes]
            assert bytes(reported).decode() == choice.delta.content
            pieces[choice.index] += choice.delta.content
    assert [pieces[0], pieces[1]] == texts
    for choice, alone in zip(both.choices, lone, strict=True):
        reported = choice.logprobs.content
        assert "".join(one.token for one in reported) == choice.message.content
        assert [one.logprob for one in reported] == pytest.approx(
            [one.logprob for one in alone.logprobs.content], abs=0.05
        )
        assert all(one.top_logprobs[0].logprob >= one.logprob for one in reported)
        assert all(len(one.top_logprobs) == 2 for one in reported)


def assert_only_new_tokens_are_processed(earlier: CompletionUsage, usage: CompletionUsage) -> None:
    """Check that the last prompt and its answer, without its last token, are cached."""
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached >= earlier.total_tokens - 1
    assert cached >= 0.95 * usage.prompt_tokens


def test_the_next_turn_reads_its_prompt_from_the_cache(client: OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Answer in few words. " * 100},
        QUESTION,
    ]
    first = client.chat.completions.create(**GREEDY, messages=messages)
    messages += [first.choices[0].message, {"role": "user", "content": "And of Italy?"}]
    second = client.chat.completions.create(**GREEDY, messages=messages)
    assert_only_new_tokens_are_processed(first.usage, second.usage)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
@pytest.mark.parametrize("stream", [True, False])
def test_required_calls_are_valid(client: OpenAI, choice: Any, stream: bool) -> None:
    call: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "How is the weather in Rome? Use a tool."}],
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "temperature": 1,
    }
    for seed in range(ROUNDS):
        if stream:
            with client.chat.completions.stream(**call, seed=seed) as events:
                (answer,) = events.get_final_completion().choices
        else:
            (answer,) = client.chat.completions.create(**call, seed=seed).choices
        (made,) = answer.message.tool_calls
        arguments = json.loads(made.function.arguments)
        schema = {"weather": SCHEMA, "now": {"type": "object"}}[made.function.name]
        jsonschema.validate(arguments, schema)
        assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize("name", GRAMMARS)
def test_custom_calls_match_their_grammar(client: OpenAI, name: str) -> None:
    grammar, pattern = GRAMMARS[name]
    custom = {"name": "code", "format": {"type": "grammar", "grammar": grammar}}
    call: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Write something for me."}],
        "tools": [*TOOLS, {"type": "custom", "custom": custom}],
        "tool_choice": {"type": "custom", "custom": {"name": "code"}},
        "temperature": 1,
        "max_completion_tokens": 400,
    }
    for seed in range(ROUNDS):
        (answer,) = client.chat.completions.create(**call, seed=seed).choices
        (made,) = answer.message.tool_calls
        assert made.custom.name == "code"
        assert re.fullmatch(pattern, made.custom.input), made.custom.input


def test_a_result_is_answered_from_the_cached_prompt(client: OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Use tools where they help. " * 60},
        {"role": "user", "content": "How is the weather in Rome?"},
    ]
    options = GREEDY | {"tools": TOOLS, "max_completion_tokens": 80}
    forced = client.chat.completions.create(
        **options, messages=messages, tool_choice=TOOLS[0] | {"function": {"name": "weather"}}
    )
    message = forced.choices[0].message.model_dump(exclude_none=True)
    (call,) = message["tool_calls"]
    # Some clients parse the arguments and write them again.
    arguments = json.loads(call["function"]["arguments"])
    call["function"]["arguments"] = json.dumps(dict(reversed(arguments.items())), indent=1)
    result = {"role": "tool", "tool_call_id": call["id"], "content": "clear, 20"}
    last = client.chat.completions.create(
        **options | {"max_completion_tokens": 16},
        messages=[*messages, message, result],
        tool_choice="none",
    )
    assert last.choices[0].message.content
    assert last.choices[0].message.tool_calls is None
    assert_only_new_tokens_are_processed(forced.usage, last.usage)


def test_formats_are_kept(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA, "strict": True}}
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]
    for seed in range(ROUNDS):
        call: dict[str, Any] = {"model": MODEL, "messages": messages, "seed": seed}
        call["temperature"] = 1
        answer = client.chat.completions.create(**call, response_format=form)
        jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
        free = client.chat.completions.create(
            **call, response_format={"type": "json_object"}, max_tokens=100
        )
        text, is_cut = free.choices[0].message.content, free.choices[0].finish_reason == "length"
        assert isinstance(from_json(text, allow_partial=is_cut), dict), text


def test_a_long_prompt_is_refused_with_its_code(client: OpenAI) -> None:
    long = {"role": "user", "content": "word " * 20_000}
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        client.chat.completions.create(**GREEDY, messages=[long])
    assert caught.value.code == "context_length_exceeded"


def test_a_text_is_continued_without_a_chat_template(client: OpenAI) -> None:
    call: dict[str, Any] = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0}
    answer = client.completions.create(**call, logprobs=2)
    (choice,) = answer.choices
    assert choice.text.startswith(" Paris")
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.tokens[0] == next(iter(choice.logprobs.top_logprobs[0])) == " Paris"
    assert (choice.finish_reason, answer.usage.completion_tokens) == ("length", 16)
    with pytest.raises(openai.BadRequestError, match="no marks for a gap"):
        client.completions.create(**call, suffix=".")
