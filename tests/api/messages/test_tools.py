"""Tool definitions: types, unknown dates, and errors."""

from typing import get_args

import pytest

from pensieve.api.messages.request import CountTokensRequest, decode
from pensieve.api.messages.tools import (
    AnyChoice,
    ClientTool,
    ClientToolType,
    ComputerUseTool,
    ComputerUseToolType,
    CustomTool,
    NamedChoice,
    ServerTool,
    ServerToolType,
)
from pensieve.errors import InvalidRequestError

SCHEMA = {"type": "object", "properties": {"location": "bar"}, "$schema": "x"}


def call(*tools: object, **fields: object) -> CountTokensRequest:
    messages = [{"role": "user", "content": "hi"}]
    return decode(
        CountTokensRequest, {"model": "m", "messages": messages, "tools": tools, **fields}
    )


@pytest.mark.parametrize("kind", [{}, {"type": None}, {"type": "custom"}])
def test_a_tool_without_a_type_is_the_clients_own(kind: dict[str, object]) -> None:
    (tool,) = call({"name": "get_weather", "input_schema": SCHEMA} | kind).tools
    assert isinstance(tool, CustomTool)
    assert tool.input_schema == SCHEMA


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (get_args(ClientToolType), ClientTool),
        (get_args(ServerToolType), ServerTool),
        (get_args(ComputerUseToolType), ComputerUseTool),
    ],
)
def test_every_tool_of_anthropic_is_recognized_by_its_type(
    types: tuple[str, ...], expected: type
) -> None:
    for type_name in types:
        (tool,) = call({"type": type_name, "name": "x", "max_uses": 8}).tools
        assert isinstance(tool, expected)
        assert tool.type == type_name


@pytest.mark.parametrize(
    ("newer", "known"),
    [
        ("text_editor_20991231", "text_editor_20250728"),
        ("web_search_20991231", "web_search_20260318"),
        ("computer_20991231", "computer_20251124"),
        ("tool_search_tool_regex_20991231", "tool_search_tool_regex_20251119"),
    ],
)
def test_a_newer_tool_is_read_as_the_newest_known_of_its_family(newer: str, known: str) -> None:
    (tool,) = call({"type": newer, "name": "x"}).tools
    assert tool.type == known


def test_a_tool_choice_keeps_its_name_and_parallel_limit() -> None:
    named = {"type": "tool", "name": "x", "disable_parallel_tool_use": True}
    assert call(tool_choice=named).tool_choice == NamedChoice(
        type="tool", name="x", disable_parallel_tool_use=True
    )
    assert call(tool_choice={"type": "any"}).tool_choice == AnyChoice(type="any")


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ({"name": "x"}, "tools.0.custom.input_schema: Field required"),
        ({"input_schema": SCHEMA}, "tools.0.custom.name: Field required"),
        (
            {"name": "a b", "input_schema": SCHEMA},
            "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        ),
        (
            {"name": "x\n", "input_schema": SCHEMA},
            "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        ),
        (
            {"name": "x", "input_schema": []},
            "tools.0.custom.input_schema: Input should be a valid dictionary",
        ),
        ("x", "tools.0: Input should be an object"),
        ({"type": 7}, "tools.0: Input tag '7' found using 'type'"),
        (
            {"type": "teleport_20260101"},
            "tools.0: Input tag 'teleport_20260101' found using 'type'",
        ),
        ({"type": "function"}, "tools.0: Input tag 'function' found using 'type'"),
    ],
)
def test_a_malformed_tool_is_refused_with_its_path(tool: object, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call(tool)
    assert caught.value.message.startswith(message)
