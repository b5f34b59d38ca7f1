"""Tools, forms and thinking through Anthropic's Python client, which checks every answer strictly; a scripted engine says the words."""

import json
from dataclasses import replace
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

from pensieve.dialects.dialect import ThinkingForm, ToolCall
from pensieve.dialects.families import plain
from pensieve.dialects.format_calls import format_calls
from tests.clients.conftest import Connect
from tests.clients.serving import prompts
from tests.clients.test_python import CALL
from tests.fakes import ScriptedEngine, says

INPUT = {"path": 'a "b"\\n.py', "text": "ünï\n" * 60}
TOOL = {
    "name": "write",
    "description": "Write a file.",
    "input_schema": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
        "required": ["path", "text"],
    },
}
ASKED: dict[str, Any] = CALL | {"max_tokens": 2000, "tools": [TOOL]}
THINKS = replace(plain.DIALECT, thinking=ThinkingForm())


def called(name: str, given: dict[str, Any]) -> str:
    return format_calls(plain.DIALECT.calls, [ToolCall(name, given)])


def test_a_call_streams_in_pieces_and_is_whole_at_the_end(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(f"I write it.\n{called('write', INPUT)}")]))
    with client.messages.stream(**ASKED) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    text, use = message.content
    assert (text.text, message.stop_reason) == ("I write it.", "tool_use")
    assert use.id.startswith("toolu_")
    assert (use.name, use.input, list(use.input)) == ("write", INPUT, list(INPUT))
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == INPUT


def test_a_whole_answer_has_the_same_call_under_another_id(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(called("write", INPUT))]))
    first, second = (client.messages.create(**ASKED) for _ in range(2))
    assert first.content[0].input == second.content[0].input == INPUT
    assert first.content[0].id != second.content[0].id


@pytest.mark.parametrize("kind", ["auto", "any", "tool", "none"])
def test_every_choice_of_tools_is_taken(connect: Connect, kind: str) -> None:
    engine = ScriptedEngine([says(called("write", INPUT))])
    choice = {"type": kind} | ({"name": "write"} if kind == "tool" else {})
    message = connect(engine).messages.create(**ASKED, tool_choice=choice)
    assert engine.generations[0].grammar is not None
    kinds = {block.type for block in message.content}
    assert kinds == ({"text"} if kind == "none" else {"tool_use"})


def test_a_call_that_is_cut_says_so(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(called("write", INPUT))]))
    message = client.messages.create(**ASKED | {"max_tokens": 80})
    assert message.stop_reason == "max_tokens"


def test_the_tool_runner_runs_tools_until_there_are_words(connect: Connect) -> None:
    ran: list[str] = []

    @beta_tool
    def write(path: str, text: str) -> str:
        """Write a file."""
        ran.append(f"{path}: {text}")
        return "written"

    script = [says(called("write", {"path": "a", "text": "b"})), says("There it is.")]
    engine = ScriptedEngine(script)
    runner = connect(engine).beta.messages.tool_runner(**CALL | {"max_tokens": 200}, tools=[write])
    message = runner.until_done()
    assert ran == ["a: b"]
    assert (message.stop_reason, message.content[0].text) == ("end_turn", "There it is.")
    assert "written" in prompts(engine)[1]


class Answer(BaseModel):
    """A form that an answer can have."""

    city: str


def test_an_answer_of_a_form_is_parsed(connect: Connect) -> None:
    engine = ScriptedEngine([says('{"city": "Paris"}')])
    parsed = connect(engine).messages.parse(**CALL, output_format=Answer)
    assert parsed.parsed_output == Answer(city="Paris")
    assert engine.generations[0].grammar is not None
    assert "city" in prompts(engine)[0]


def test_thoughts_come_with_a_signature_and_may_be_sent_back(connect: Connect) -> None:
    engine = ScriptedEngine([says("<think>Hm, hm.</think>\n\nYes.")])
    client = connect(engine, dialect=THINKS)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = CALL | {"max_tokens": 2000, "thinking": thinking}
    with client.messages.stream(**asked) as stream:
        thought = "".join(event.thinking for event in stream if event.type == "thinking")
        message = stream.get_final_message()
    block, text = message.content
    assert (thought, block.thinking, text.text) == ("Hm, hm.", "Hm, hm.", "Yes.")
    assert block.signature
    assert message.usage.output_tokens_details.thinking_tokens > 0
    sent_back = [
        *asked["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": "Sure?"},
    ]
    assert client.messages.create(**asked | {"messages": sent_back}).stop_reason == "end_turn"


def test_a_thought_that_is_not_to_be_seen_is_in_the_signature(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("<think>Secret.</think>\n\nYes.")]), dialect=THINKS)
    thinking = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
    message = client.messages.create(**CALL | {"max_tokens": 2000, "thinking": thinking})
    block, text = message.content
    assert (block.thinking, text.text) == ("", "Yes.")
    assert len(block.signature) > 30


def test_what_the_model_can_is_told(connect: Connect) -> None:
    def capabilities(**model: Any) -> Any:
        client = connect(ScriptedEngine([[]]), **model)
        return client.models.list().data[0].capabilities

    assert capabilities().structured_outputs.supported
    assert not capabilities().thinking.supported
    thinking = capabilities(dialect=THINKS).thinking
    assert (thinking.supported, thinking.types.adaptive.supported) == (True, True)


def test_a_strict_schema_that_cannot_be_held_to_is_refused(connect: Connect) -> None:
    endless = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = TOOL | {"input_schema": endless, "strict": True}
    with pytest.raises(anthropic.BadRequestError, match="are not supported"):
        connect(ScriptedEngine([says("ok")])).messages.create(**ASKED | {"tools": [tool]})
