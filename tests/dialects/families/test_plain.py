"""Models without tools, or without any template: what they are told in their place."""

import json

import pytest

from pensieve.dialects.dialect import ToolSpec
from pensieve.dialects.families import plain
from pensieve.models.tokenizer.chat_template import ChatTemplate


def test_a_conversation_is_a_transcript_that_the_assistant_goes_on_with() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye\n"},
    ]
    template = ChatTemplate(plain.TEMPLATE, {"bos_token": "<s>"})
    assert template.render(messages) == (
        "<s>Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Bye\n\n\nAssistant:"
    )


def test_a_model_without_a_first_token_gets_none() -> None:
    template = ChatTemplate(plain.TEMPLATE, {})
    assert template.render([{"role": "user", "content": "Hi"}]) == "User: Hi\n\nAssistant:"


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_tools_are_told_of_as_lines_of_json_with_a_rule_and_an_example() -> None:
    told = plain.tools_text([ToolSpec("weather", "Tells it.", CITY), ToolSpec("clock", "", {})])
    lines = told.splitlines()
    assert lines[2] == (
        '{"name":"weather","description":"Tells it.","input_schema":{"type":"object","properties":'
        '{"city":{"type":"string"}},"required":["city"]}}'
    )
    assert json.loads(lines[3]) == {"name": "clock", "input_schema": {}}
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "..."}}\n</tool_call>' in told


@pytest.mark.parametrize(
    ("part", "example"),
    [
        ({"type": "integer"}, 1),
        ({"type": "boolean"}, True),
        ({"type": "array"}, []),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": ["string", "null"]}, "..."),
        ({}, "..."),
        ("nonsense", "..."),
    ],
)
def test_the_example_gives_what_must_be_given(part: object, example: object) -> None:
    schema = {"properties": {"x": part, "optional": {}}, "required": ["x", {}]}
    told = plain.tools_text([ToolSpec("tool", "", schema)])
    written = told.partition("<tool_call>\n")[2].partition("\n</tool_call>")[0]
    assert json.loads(written) == {"name": "tool", "arguments": {"x": example}}
