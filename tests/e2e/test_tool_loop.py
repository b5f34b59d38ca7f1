"""A tool loop of the official client with a model that was trained to use a tool.

The model has learnt five answers (trained_model.py). That its calls run a tool and that the result
reaches it in the trained form depends on pensieve; a processed turn is not processed again.
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
from tests.e2e.installation import KEY, Installation
from tests.support.ports import free_port
from tests.support.trained_model import Lesson, train, train_apart

# The tokens of a tool result with the control tokens of its turn.
MAX_NEW_TOKENS = 32
# The client has no parameter `temperature` any more.
GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}
QUESTIONS = [(2, 3), (4, 5)]


@beta_tool
def add(left: int, right: int) -> str:
    """Add two whole numbers."""
    return str(left + right)


BASE: dict[str, Any] = {"model": "trained", "max_tokens": 60, "tools": [add.to_dict()]}


def question(left: int, right: int) -> dict[str, Any]:
    return {"role": "user", "content": f"What is {left} plus {right}?"}


def lessons(left: int, right: int) -> list[Lesson]:
    """Return the tool call, and the answer after the result."""
    arguments = {"left": left, "right": right}
    use = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": arguments}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": str(left + right)}
    later = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    asking = question(left, right)
    call = format_calls(DIALECT.calls, [ToolCall("add", arguments)])
    return [
        Lesson(BASE | {"messages": [asking]}, call),
        Lesson(
            BASE | {"messages": [asking, *later]},
            f"{left} plus {right} is {left + right}, I hear.",
        ),
    ]


def train_tool_model(folder: Path) -> None:
    greeting = [{"role": "user", "content": "Say hello."}]
    all_lessons = [lesson for pair in QUESTIONS for lesson in lessons(*pair)]
    all_lessons.append(Lesson(BASE | {"messages": greeting}, "Hello there!"))
    train(all_lessons, folder)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    folder = tmp_path_factory.mktemp("trained") / "trained"
    train_apart("tests.e2e.test_tool_loop", folder)
    installation = Installation(tmp_path_factory.mktemp("loop home"), free_port())
    installation.pensieve("start", "--model", str(folder), "--device", "cpu")
    with anthropic.Anthropic(base_url=installation.base_url, api_key=KEY, max_retries=0) as client:
        yield client
    installation.pensieve("stop")


@pytest.mark.parametrize(("left", "right"), QUESTIONS)
def test_the_tool_runner_gets_the_right_answer(
    client: anthropic.Anthropic, left: int, right: int
) -> None:
    runner = client.beta.messages.tool_runner(
        model="trained",
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


def test_a_question_without_need_of_tools_is_answered_with_text(
    client: anthropic.Anthropic,
) -> None:
    message = client.messages.create(
        **BASE, messages=[{"role": "user", "content": "Say hello."}], **GREEDY
    )
    assert (message.stop_reason, message.content[0].text) == ("end_turn", "Hello there!")


def test_the_next_turn_processes_little_more_than_the_tool_result(
    client: anthropic.Anthropic,
) -> None:
    """The client returns the call with its keys in another order and one more key."""
    asking = question(2, 3)
    first_answer = client.messages.create(**BASE, messages=[asking], **GREEDY)
    (use,) = first_answer.content
    reordered = dict(sorted(use.input.items(), reverse=True)) | {"is_exact": True}
    assert list(reordered) != list(use.input)
    changed = [use.model_dump() | {"input": reordered}]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "5"}
    messages = [
        asking,
        {"role": "assistant", "content": changed},
        {"role": "user", "content": [result]},
    ]
    second_answer = client.messages.create(**BASE, messages=messages, **GREEDY)
    usage = second_answer.usage
    first = first_answer.usage.input_tokens + first_answer.usage.cache_creation_input_tokens
    assert usage.input_tokens + usage.cache_creation_input_tokens < MAX_NEW_TOKENS
    assert usage.cache_read_input_tokens > first
    assert second_answer.content[0].text == "2 plus 3 is 5, I hear."


def test_a_tool_call_streams_while_it_is_generated(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**BASE, messages=[question(4, 5)], **GREEDY) as stream:
        deltas = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert len(list(filter(None, deltas))) >= 2
    assert json.loads("".join(deltas)) == final.content[0].input == {"left": 4, "right": 5}


if __name__ == "__main__":
    train_tool_model(Path(sys.argv[1]))
