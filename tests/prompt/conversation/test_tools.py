"""The tools of a conversation: which are listed or described, and which may be called."""

import logging
from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.families import lfm2, qwen_coder
from pensieve.dialects.grammar.schema_validation import admits
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.tools import PLACEHOLDER, ToolSet, tool_set_of
from pensieve.prompt.render import PromptRenderer
from tests.prompt.chat_models import DIALECTS, MODELS

HELLO = {"role": "user", "content": "hello"}
SEARCH = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
WEB = {"type": "web_search_20250305", "name": "web_search"}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "input_schema": {"type": "object"},
        "description": f"about {name}",
    } | fields


def found(*names: str) -> list[dict[str, Any]]:
    """A search by the client, and its result."""
    parts = [{"type": "tool_reference", "tool_name": name} for name in names]
    return [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "s", "name": "find", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "s", "content": parts}],
        },
    ]


def conversation(*messages: dict[str, Any], **fields: Any) -> Conversation:
    return decode(Conversation, {"model": "m", "messages": [HELLO, *messages], **fields})


def offered(*messages: dict[str, Any], context_tokens: int = 8192, **fields: Any) -> ToolSet:
    return tool_set_of(conversation(*messages, **fields), context_tokens)


def names(tool_set: ToolSet) -> tuple[list[str], list[str]]:
    return [spec.name for spec in tool_set.listed], list(tool_set.callable)


def prompt_text(model: str, *messages: dict[str, Any], **fields: Any) -> str:
    renderer = PromptRenderer(MODELS[model], DIALECTS[model])
    tokens = renderer.render(conversation(*messages, **fields)).tokens
    detokenizer = MODELS[model].detokenizer()
    return "".join(map(detokenizer.feed, tokens))


def test_client_tool_is_listed_and_callable() -> None:
    assert names(offered(tools=[tool("a"), tool("b")])) == (["a", "b"], ["a", "b"])


def test_server_tools_are_left_out() -> None:
    assert names(offered(tools=[tool("a"), WEB])) == (["a"], ["a"])


def test_deferred_tool_is_neither_listed_nor_callable_before_it_is_found() -> None:
    tools = [tool("a"), tool("b", defer_loading=True)]
    assert names(offered(tools=tools)) == (["a"], ["a"])
    assert names(offered(*found("b"), tools=tools)) == (["a"], ["a", "b"])


def test_hosted_tool_search_lists_all_tools_from_the_start() -> None:
    tools = [SEARCH, tool("a", defer_loading=True), tool("b")]
    assert names(offered(tools=tools)) == (["a", "b"], ["a", "b"])


def test_placeholder_of_deferred_tools_is_no_tool() -> None:
    assert names(offered(tools=[tool("a"), tool(PLACEHOLDER)])) == (["a"], ["a"])


def test_a_system_turn_adds_and_removes_tools() -> None:
    added = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "b"}}
    inline = {"type": "tool_addition", "tool": tool("c")}
    removed = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "a"}}
    tools = [tool("a"), tool("b", defer_loading=True)]
    system = {"role": "system", "content": [added, inline, removed]}
    assert names(offered(system, tools=tools)) == (["a"], ["b", "c"])
    text = prompt_text("qwen", system, tools=tools)
    for name in ("b", "c"):
        assert f'<function>{{"description": "about {name}", "name": "{name}"' in text
    assert "The tool a cannot be used any more." in text


@pytest.mark.parametrize("key", ["name", "tool_name"])
def test_an_added_tool_is_named_by_either_key(key: str) -> None:
    added = {"type": "tool_addition", "tool": {"type": "tool_reference", key: "b"}}
    tools = [tool("a"), tool("b", defer_loading=True)]
    system = {"role": "system", "content": [added]}
    assert names(offered(system, tools=tools)) == (["a"], ["a", "b"])


def test_value_slots_are_those_of_called_tools_in_a_form_between_tags() -> None:
    integer = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tools = [tool("find", input_schema=integer), tool("b")]
    call = conversation(*found("b"), tools=tools)
    tagged, quoted = (one.DIALECT.calls.parameters for one in (qwen_coder, lfm2))
    slots = tool_set_of(call, 8192, tagged).slots
    assert list(slots) == ["find"]
    assert slots["find"].of("n").is_value
    assert not tool_set_of(conversation(*found("b"), tools=tools[1:]), 8192, tagged).slots
    assert not tool_set_of(call, 8192, quoted).slots
    assert not tool_set_of(call, 8192).slots


def test_invalid_inline_tool_definition_is_refused() -> None:
    inline = {"type": "tool_addition", "tool": tool("bad name")}
    with pytest.raises(InvalidRequestError, match="String should match pattern"):
        offered({"role": "system", "content": [inline]})


@pytest.mark.parametrize("model", ["qwen", "hermes"])
def test_found_tool_is_described_in_its_result_and_the_text_before_is_unchanged(model: str) -> None:
    tools = [tool("find"), tool("b", defer_loading=True)]
    before = prompt_text(model, tools=tools)
    after = prompt_text(model, *found("b"), tools=tools)
    shared = before.partition("assistant")[0]
    assert after.startswith(shared)
    definition = (
        '<functions>\n<function>{"description": "about b", "name": "b", "parameters": {"type": '
        '"object"}}'
        "</function>\n</functions>"
    )
    assert definition not in before
    assert definition in after


def test_reference_to_an_unknown_tool_stays_a_name() -> None:
    assert "<tool_reference>\nnope\n</tool_reference>" in prompt_text(
        "qwen", *found("nope"), tools=[tool("find")]
    )


@pytest.mark.parametrize(
    ("kind", "commands"),
    [
        ("text_editor_20250728", ["view", "create", "str_replace", "insert"]),
        ("text_editor_20250124", ["view", "create", "str_replace", "insert", "undo_edit"]),
        ("memory_20250818", ["view", "create", "str_replace", "insert", "delete", "rename"]),
    ],
)
def test_tools_defined_by_anthropic_have_their_schemas(kind: str, commands: list[str]) -> None:
    (spec,) = offered(tools=[{"type": kind, "name": "edit"}]).listed
    properties: Any = spec.schema["properties"]
    assert spec.name == "edit"
    assert properties["command"]["enum"] == commands
    assert ("insert_text" in properties) == (kind != "text_editor_20250124")


BASH = ("bash_20241022", "bash_20250124")
OLD_EDITORS = ("text_editor_20241022", "text_editor_20250124", "text_editor_20250429")
EDITORS = (*OLD_EDITORS, "text_editor_20250728", "memory_20250818")
# Inputs as Anthropic documents them, with the types of tools that take them.
INPUTS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (BASH, {"command": "ls"}),
    (BASH, {"restart": True}),
    (EDITORS, {"command": "view", "path": "/a", "view_range": [1, -1]}),
    (EDITORS, {"command": "create", "path": "/a", "file_text": "x"}),
    (EDITORS, {"command": "str_replace", "path": "/a", "old_str": "x", "new_str": "y"}),
    (OLD_EDITORS, {"command": "insert", "path": "/a", "insert_line": 0, "new_str": "y"}),
    (EDITORS[3:], {"command": "insert", "path": "/a", "insert_line": 0, "insert_text": "y"}),
    (OLD_EDITORS[:2], {"command": "undo_edit", "path": "/a"}),
    (EDITORS[4:], {"command": "rename", "old_path": "/a", "new_path": "/b"}),
    (EDITORS[4:], {"command": "delete", "path": "/a"}),
]


@pytest.mark.parametrize(
    ("kind", "written"), [(kind, written) for kinds, written in INPUTS for kind in kinds]
)
def test_tools_defined_by_anthropic_take_the_documented_inputs_and_no_others(
    kind: str, written: dict[str, Any]
) -> None:
    (spec,) = offered(tools=[{"type": kind, "name": "run"}]).listed
    assert spec.name == "run"
    assert admits(spec.schema, written, spec.schema)
    assert not admits(spec.schema, written | {"other": 1}, spec.schema)
    for name in written:
        assert not admits(spec.schema, written | {name: {}}, spec.schema)


@pytest.mark.parametrize("kind", EDITORS)
def test_an_editor_takes_no_unknown_command_incomplete_input_or_range(kind: str) -> None:
    (spec,) = offered(tools=[{"type": kind, "name": "edit"}]).listed
    view = {"command": "view", "path": "/a"}
    for wrong in (
        {"path": "/a"},
        view | {"command": "run"},
        view | {"view_range": [1]},
        view | {"view_range": [1, 2, 3]},
        view | {"view_range": ["1", "2"]},
    ):
        assert not admits(spec.schema, wrong, spec.schema)
    if kind != "memory_20250818":  # to rename takes no path
        assert not admits(spec.schema, {"command": "view"}, spec.schema)


def test_bash_tool_takes_a_command_or_a_restart() -> None:
    (spec,) = offered(tools=[{"type": "bash_20250124", "name": "bash"}]).listed
    assert list(spec.schema["properties"]) == ["command", "restart"]


def test_tools_that_would_fill_the_context_are_summarized(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    tools = [tool("a", description=f"It reads. {'And more. ' * 300}")]
    assert "And more" in offered(tools=tools, context_tokens=8192).listed[0].description
    assert not caplog.records
    assert offered(tools=tools, context_tokens=2048).listed[0].description == "It reads."
    assert "1 tools are too long for the model's context" in caplog.text


def test_plain_dialect_describes_tools_before_the_clients_system_prompt() -> None:
    """The system prompt names a folder or a day: other conversations share the text before it."""
    here, there = (
        prompt_text("qwen", system=f"You work in /{folder}.", tools=[tool("a")])
        for folder in ("here", "there")
    )
    assert here.index("# Tools") < here.index("You work in") < here.index("hello")
    assert here.partition("You work in")[0] == there.partition("You work in")[0]


def test_template_with_tools_gets_tools_and_results() -> None:
    text = prompt_text("hermes", *found("b"), system="Be brief.", tools=[tool("find")])
    assert '<tools>\n{"type": "function", "function": {"name": "find"' in text
    assert "input_schema" not in text
    assert 'assistant\n<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>\nuser' in text
    assert "<tool_response>\n<tool_reference>\nb\n</tool_reference>\n</tool_response>" in text
