"""Models without tools, or without any chat template."""

import json

import pytest

from pensieve.dialects.dialect import ToolSpec
from pensieve.dialects.families import plain
from pensieve.models.tokenizer.chat_template import ChatTemplate


def test_plain_template_renders_a_transcript_ending_in_the_assistants_turn() -> None:
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


def test_plain_template_adds_no_bos_token_if_the_model_has_none() -> None:
    template = ChatTemplate(plain.TEMPLATE, {})
    assert template.render([{"role": "user", "content": "Hi"}]) == "User: Hi\n\nAssistant:"


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_tools_text_lists_tools_as_json_lines_with_a_rule_and_an_example() -> None:
    text = plain.tools_text([ToolSpec("weather", "Tells it.", CITY), ToolSpec("clock", "", {})])
    lines = text.splitlines()
    assert lines[2] == (
        '{"name":"weather","description":"Tells it.","input_schema":{"type":"object","properties":'
        '{"city":{"type":"string"}},"required":["city"]}}'
    )
    assert json.loads(lines[3]) == {"name": "clock", "input_schema": {}}
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "..."}}\n</tool_call>' in text


@pytest.mark.parametrize(
    ("part", "example"),
    [
        ({"type": "integer"}, 1),
        ({"type": "boolean"}, True),
        ({"type": "number"}, 1),
        ({"type": "array"}, []),
        ({"type": "object"}, {}),
        ({"type": "null"}, None),
        ({"enum": [], "type": "boolean"}, True),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": ["string", "null"]}, "..."),
        ({}, "..."),
        ("nonsense", "..."),
    ],
)
def test_example_call_contains_the_required_parameters(part: object, example: object) -> None:
    schema = {"properties": {"x": part, "optional": {}}, "required": ["x", {}]}
    text = plain.tools_text([ToolSpec("tool", "", schema)])
    written = text.partition("<tool_call>\n")[2].partition("\n</tool_call>")[0]
    assert json.loads(written) == {"name": "tool", "arguments": {"x": example}}
