"""OpenAI's Python client and its Responses API, against a real server with the embedded model."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openai import OpenAI
from pydantic_core import from_json

from tests.e2e.installation import KEY, MODEL, Installation
from tests.e2e.openai.grammars import GRAMMARS

GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 24}
QUESTION = "What is the capital of France?"
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
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "parameters": SCHEMA,
    "strict": True,
}
CODE: dict[str, Any] = {"type": "custom", "name": "code"}
SPACE: dict[str, Any] = {
    "type": "namespace",
    "name": "home",
    "description": "At home.",
    "tools": [WEATHER, CODE],
}
WEATHER_AT_HOME = {"type": "function", "name": "weather", "namespace": "home"}


@pytest.fixture
def client(server: Installation) -> Iterator[OpenAI]:
    """Validates every answer against its own types."""
    url = f"{server.base_url}/v1"
    with OpenAI(base_url=url, api_key=KEY, _strict_response_validation=True) as client:
        yield client


def test_responses_are_equal_whole_and_streamed(client: OpenAI) -> None:
    whole = client.responses.create(**GREEDY, input=QUESTION)
    events = list(client.responses.create(**GREEDY, input=QUESTION, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1].response
    assert "Paris" in whole.output_text
    assert whole.output_text == last.output_text == "".join(deltas)
    assert (whole.status, whole.usage.output_tokens) == (last.status, last.usage.output_tokens)
    assert len(deltas) > 2


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_next_turn_reads_its_prompt_from_the_cache(client: OpenAI, is_stored: bool) -> None:
    instructions = "Answer in few words. " * 100
    call = GREEDY | {"instructions": instructions, "store": is_stored}
    items: list[Any] = [{"role": "user", "content": f"{QUESTION} {is_stored}"}]
    first = client.responses.create(**call, input=items)
    following = {"role": "user", "content": "And of Italy?"}
    if is_stored:
        call |= {"previous_response_id": first.id}
        items = [following]
    else:
        items += [*first.output, following]
    usage = client.responses.create(**call, input=items).usage
    cached = usage.input_tokens_details.cached_tokens
    # The last token of the answer was not processed.
    assert cached >= first.usage.total_tokens - 1
    assert cached >= 0.95 * usage.input_tokens


@pytest.mark.parametrize("stream", [True, False])
def test_required_calls_are_valid(client: OpenAI, stream: bool) -> None:
    call: dict[str, Any] = {
        "model": MODEL,
        "input": "How is the weather in Rome? Use a tool.",
        "tools": [SPACE],
        "parallel_tool_calls": False,
        "temperature": 1,
    }
    for _ in range(ROUNDS):
        if stream:
            with client.responses.stream(**call, tool_choice=WEATHER_AT_HOME) as events:
                (made,) = events.until_done().get_final_response().output
        else:
            (made,) = client.responses.create(**call, tool_choice=WEATHER_AT_HOME).output
        assert (made.name, made.namespace) == ("weather", "home")
        jsonschema.validate(json.loads(made.arguments), SCHEMA)


def test_the_input_of_a_custom_tool_matches_its_grammar(client: OpenAI) -> None:
    grammar, pattern = GRAMMARS["lark"]
    tool = {"type": "custom", "name": "code", "format": {"type": "grammar", **grammar}}
    call: dict[str, Any] = {
        "model": MODEL,
        "input": "Write something for me.",
        "tools": [SPACE | {"tools": [WEATHER, tool]}],
        "tool_choice": {"type": "custom", "name": "code", "namespace": "home"},
        "temperature": 1,
        "max_output_tokens": 400,
    }
    for at in range(ROUNDS):
        (made,) = client.responses.create(**call, extra_body={"seed": at}).output
        assert (made.type, made.name) == ("custom_tool_call", "code")
        assert re.fullmatch(pattern, made.input), made.input


def test_formats_are_kept(client: OpenAI) -> None:
    form = {"type": "json_schema", "name": "w", "schema": SCHEMA, "strict": True}
    call: dict[str, Any] = {"model": MODEL, "input": "How is the weather in Rome?"}
    call["temperature"] = 1
    for _ in range(ROUNDS):
        answer = client.responses.create(**call, text={"format": form})
        jsonschema.validate(json.loads(answer.output_text), SCHEMA)
        free = client.responses.create(
            **call, text={"format": {"type": "json_object"}}, max_output_tokens=100
        )
        text, is_cut = free.output_text, free.status == "incomplete"
        assert isinstance(from_json(text, allow_partial=is_cut), dict), text
