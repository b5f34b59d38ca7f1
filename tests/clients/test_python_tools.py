"""Tools, output formats and thinking through Anthropic's Python client and a scripted engine."""

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
from tests.support.fakes import ScriptedEngine, says

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
REQUEST: dict[str, Any] = CALL | {"max_tokens": 2000, "tools": [TOOL]}
THINKING_DIALECT = replace(plain.DIALECT, thinking=ThinkingForm())


def call_text(name: str, arguments: dict[str, Any]) -> str:
    return format_calls(plain.DIALECT.calls, [ToolCall(name, arguments)])


def test_a_tool_call_streams_in_deltas(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(f"I write it.\n{call_text('write', INPUT)}")]))
    with client.messages.stream(**REQUEST) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    text, use = message.content
    assert (text.text, message.stop_reason) == ("I write it.", "tool_use")
    assert use.id.startswith("toolu_")
    assert (use.name, use.input, list(use.input)) == ("write", INPUT, list(INPUT))
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == INPUT


def test_the_same_call_has_another_id_in_each_answer(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(call_text("write", INPUT))]))
    first, second = (client.messages.create(**REQUEST) for _ in range(2))
    assert first.content[0].input == second.content[0].input == INPUT
    assert first.content[0].id != second.content[0].id


@pytest.mark.parametrize("kind", ["auto", "any", "tool", "none"])
def test_every_tool_choice_is_accepted(connect: Connect, kind: str) -> None:
    engine = ScriptedEngine([says(call_text("write", INPUT))])
    choice = {"type": kind} | ({"name": "write"} if kind == "tool" else {})
    message = connect(engine).messages.create(**REQUEST, tool_choice=choice)
    assert engine.generations[0].grammar is not None
    kinds = {block.type for block in message.content}
    assert kinds == ({"text"} if kind == "none" else {"tool_use"})


def test_a_truncated_call_has_stop_reason_max_tokens(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(call_text("write", INPUT))]))
    message = client.messages.create(**REQUEST | {"max_tokens": 80})
    assert message.stop_reason == "max_tokens"


def test_the_tool_runner_runs_tools_until_a_text_answer(connect: Connect) -> None:
    runs: list[str] = []

    @beta_tool
    def write(path: str, text: str) -> str:
        """Write a file."""
        runs.append(f"{path}: {text}")
        return "written"

    script = [says(call_text("write", {"path": "a", "text": "b"})), says("It is written.")]
    engine = ScriptedEngine(script)
    runner = connect(engine).beta.messages.tool_runner(**CALL | {"max_tokens": 200}, tools=[write])
    message = runner.until_done()
    assert runs == ["a: b"]
    assert (message.stop_reason, message.content[0].text) == ("end_turn", "It is written.")
    assert "written" in prompts(engine)[1]


class Answer(BaseModel):
    city: str


def test_structured_output_is_parsed(connect: Connect) -> None:
    engine = ScriptedEngine([says('{"city": "Paris"}')])
    parsed = connect(engine).messages.parse(**CALL, output_format=Answer)
    assert parsed.parsed_output == Answer(city="Paris")
    assert engine.generations[0].grammar is not None
    assert "city" in prompts(engine)[0]


def test_thinking_has_a_signature_and_can_be_sent_back(connect: Connect) -> None:
    engine = ScriptedEngine([says("<think>Hm, hm.</think>\n\nYes.")])
    client = connect(engine, dialect=THINKING_DIALECT)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    request = CALL | {"max_tokens": 2000, "thinking": thinking}
    with client.messages.stream(**request) as stream:
        thought = "".join(event.thinking for event in stream if event.type == "thinking")
        message = stream.get_final_message()
    block, text = message.content
    assert (thought, block.thinking, text.text) == ("Hm, hm.", "Hm, hm.", "Yes.")
    assert block.signature
    assert message.usage.output_tokens_details.thinking_tokens > 0
    messages = [
        *request["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": "Sure?"},
    ]
    assert client.messages.create(**request | {"messages": messages}).stop_reason == "end_turn"


def test_omitted_thinking_is_in_the_signature(connect: Connect) -> None:
    client = connect(
        ScriptedEngine([says("<think>Secret.</think>\n\nYes.")]), dialect=THINKING_DIALECT
    )
    thinking = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
    message = client.messages.create(**CALL | {"max_tokens": 2000, "thinking": thinking})
    block, text = message.content
    assert (block.thinking, text.text) == ("", "Yes.")
    assert len(block.signature) > 30


def test_capabilities_follow_the_dialect(connect: Connect) -> None:
    def capabilities(**model: Any) -> Any:
        client = connect(ScriptedEngine([[]]), **model)
        return client.models.list().data[0].capabilities

    assert capabilities().structured_outputs.supported
    assert not capabilities().thinking.supported
    thinking = capabilities(dialect=THINKING_DIALECT).thinking
    assert (thinking.supported, thinking.types.adaptive.supported) == (True, True)


def test_an_unsupported_strict_schema_is_refused(connect: Connect) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = TOOL | {"input_schema": schema, "strict": True}
    with pytest.raises(anthropic.BadRequestError, match="are not supported"):
        connect(ScriptedEngine([says("ok")])).messages.create(**REQUEST | {"tools": [tool]})
