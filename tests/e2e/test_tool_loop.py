"""A tool loop of the official client against a model that was taught to use a tool: nothing is scripted.

The model knows five answers by heart (tests/trained_model.py); that its calls run a tool and that what the tool says comes to
it as it was taught is pensieve's doing. And what was processed for one turn is not processed again for the next.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool

from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.families.plain import DIALECT
from pensieve.dialects.format_calls import format_calls
from tests.e2e.conftest import KEY, Journey, free_port
from tests.trained_model import Lesson, train, train_apart

# Beyond a tool's result: its tags, and what stands around a turn.
MOST_PROCESSED_AGAIN = 32
# Which the client itself no longer knows.
GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}
QUESTIONS = [(2, 3), (4, 5)]


@beta_tool
def add(left: int, right: int) -> str:
    """Add two whole numbers."""
    return str(left + right)


BASE: dict[str, Any] = {"model": "taught", "max_tokens": 60, "tools": [add.to_dict()]}


def question(left: int, right: int) -> dict[str, Any]:
    return {"role": "user", "content": f"What is {left} plus {right}?"}


def lessons(left: int, right: int) -> list[Lesson]:
    """The call, and the words once the result is there."""
    given = {"left": left, "right": right}
    use = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": given}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": str(left + right)}
    later = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    asked = question(left, right)
    return [
        Lesson(BASE | {"messages": [asked]}, format_calls(DIALECT.calls, [ToolCall("add", given)])),
        Lesson(
            BASE | {"messages": [asked, *later]}, f"{left} plus {right} is {left + right}, I hear."
        ),
    ]


def teach(folder: Path) -> None:
    """Fill `folder` with the model."""
    greeting = [{"role": "user", "content": "Say hello."}]
    taught = [lesson for pair in QUESTIONS for lesson in lessons(*pair)]
    taught.append(Lesson(BASE | {"messages": greeting}, "Hello there!"))
    train(taught, folder)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    folder = tmp_path_factory.mktemp("taught") / "taught"
    train_apart("tests.e2e.test_tool_loop", folder)
    journey = Journey(tmp_path_factory.mktemp("loop home"), free_port())
    journey.pensieve("start", "--model", str(folder), "--device", "cpu")
    with anthropic.Anthropic(base_url=journey.base_url, api_key=KEY, max_retries=0) as client:
        yield client
    journey.pensieve("stop")


@pytest.mark.parametrize(("left", "right"), QUESTIONS)
def test_the_clients_tool_runner_comes_to_the_right_answer(
    client: anthropic.Anthropic, left: int, right: int
) -> None:
    runner = client.beta.messages.tool_runner(
        model="taught",
        max_tokens=60,
        tools=[add],
        messages=[question(left, right)],
        **GREEDY,
    )
    messages = list(runner)
    assert [message.stop_reason for message in messages] == ["tool_use", "end_turn"]
    (use,) = messages[0].content
    assert (use.type, use.name, use.input) == ("tool_use", "add", {"left": left, "right": right})
    assert messages[1].content[0].text == f"{left} plus {right} is {left + right}, I hear."


def test_a_question_that_needs_no_tool_is_answered_without(client: anthropic.Anthropic) -> None:
    said = client.messages.create(
        **BASE, messages=[{"role": "user", "content": "Say hello."}], **GREEDY
    )
    assert (said.stop_reason, said.content[0].text) == ("end_turn", "Hello there!")


def test_the_next_turn_processes_little_more_than_the_result(client: anthropic.Anthropic) -> None:
    """Although the client sends the call back with its keys in another order, and one more."""
    asked = question(2, 3)
    called = client.messages.create(**BASE, messages=[asked], **GREEDY)
    (use,) = called.content
    reordered = dict(sorted(use.input.items(), reverse=True)) | {"is_exact": True}
    assert list(reordered) != list(use.input)
    sent_back = [use.model_dump() | {"input": reordered}]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "5"}
    messages = [
        asked,
        {"role": "assistant", "content": sent_back},
        {"role": "user", "content": [result]},
    ]
    answered = client.messages.create(**BASE, messages=messages, **GREEDY)
    usage = answered.usage
    first = called.usage.input_tokens + called.usage.cache_creation_input_tokens
    assert usage.input_tokens + usage.cache_creation_input_tokens < MOST_PROCESSED_AGAIN
    assert usage.cache_read_input_tokens > first
    assert answered.content[0].text == "2 plus 3 is 5, I hear."


def test_a_call_streams_as_it_is_written(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**BASE, messages=[question(4, 5)], **GREEDY) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert len(list(filter(None, pieces))) >= 2
    assert json.loads("".join(pieces)) == final.content[0].input == {"left": 4, "right": 5}


if __name__ == "__main__":
    teach(Path(sys.argv[1]))
