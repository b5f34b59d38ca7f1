"""A chat request becomes a conversation, or is refused by the path of what cannot be honoured."""

import logging
from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, decode
from pensieve.api.messages.tools import (
    AnyChoice,
    AutoChoice,
    InputGrammar,
    NamedChoice,
    NoChoice,
    TextTool,
)
from pensieve.errors import InvalidRequestError
from pensieve.openai.chat_request import ChatRequest
from pensieve.openai.conversation import conversation_of, custom_tools_of

CALL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
F = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
G = {"type": "function", "function": {"name": "g"}}
PATCH = {"type": "custom", "custom": {"name": "patch", "description": "Edit."}}
TOOLS = [F, G, PATCH]


def conversation(**fields: object) -> Conversation:
    return conversation_of(decode(ChatRequest, CALL | fields))


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        conversation(**fields)
    return caught.value.message


def test_model_and_messages_are_taken_over() -> None:
    made = conversation()
    assert made.model == "m"
    assert [(turn.role, turn.content[0].text) for turn in made.messages] == [("user", "hi")]
    assert (made.tools, made.tool_choice, made.output_schema) == ((), None, None)


def test_unknown_fields_are_ignored_and_nulls_are_absent() -> None:
    fields = dict.fromkeys([*ChatRequest.model_fields.keys() - CALL.keys(), "store", "x"])
    assert conversation(**fields) == conversation(metadata={"a": "b"}, verbosity="low", user="u")


def test_functions_become_tools() -> None:
    f, g, _ = conversation(tools=TOOLS).tools
    assert (f.name, f.description, f.input_schema, f.strict) == ("f", "d", SCHEMA, False)
    assert g.input_schema == {"type": "object", "properties": {}}
    strict = {"type": "function", "function": F["function"] | {"strict": True}}
    assert conversation(tools=[strict]).tools[0].strict


@pytest.mark.parametrize("field", ["parameters", "input_schema"])
@pytest.mark.parametrize("kind", [{}, {"type": "function"}, {"type": None}])
def test_flat_function_is_read(field: str, kind: dict[str, object]) -> None:
    (tool,) = conversation(tools=[{"name": "f", "description": "d", field: SCHEMA, **kind}]).tools
    assert (tool.name, tool.description, tool.input_schema) == ("f", "d", SCHEMA)


def test_custom_tool_takes_a_text_of_its_grammar() -> None:
    grammar = {"syntax": "lark", "definition": "start: /a/"}
    custom = PATCH["custom"] | {"format": {"type": "grammar", "grammar": grammar}}
    (tool,) = conversation(tools=[PATCH | {"custom": custom}]).tools
    assert isinstance(tool, TextTool)
    assert tool.input_grammar == InputGrammar(**grammar)
    assert tool.description == "Edit.\n\nThe input matches this lark grammar:\nstart: /a/"
    assert tool.input_schema["properties"] == {"input": {"type": "string"}}
    assert custom_tools_of(decode(ChatRequest, CALL | {"tools": TOOLS})) == {"patch"}


@pytest.mark.parametrize("kind", ["web_search", "namespace", "mcp", "zebra"])
def test_tool_of_another_kind_is_left_out(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tool = {"type": kind, "name": "x", "tools": [F]}
    assert [tool.name for tool in conversation(tools=[tool, F, tool]).tools] == ["f"]
    known = "unknown" if kind == "zebra" else kind
    assert [record.getMessage() for record in caplog.records] == [
        f"ignoring 2 tools that this server cannot run, of type {known}"
    ]


def named(name: str, kind: str = "function") -> dict[str, object]:
    return {"type": kind, kind: {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, object]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, AutoChoice(type="auto")),
        ("auto", AutoChoice(type="auto")),
        ("none", NoChoice(type="none")),
        ("required", AnyChoice(type="any")),
        (named("f"), NamedChoice(type="tool", name="f")),
        ({"type": "function", "name": "f"}, NamedChoice(type="tool", name="f")),
        (named("patch", "custom"), NamedChoice(type="tool", name="patch")),
        (allowed("auto", "f", "g"), AutoChoice(type="auto", allowed=("f", "g"))),
        (allowed("auto"), AutoChoice(type="auto", allowed=())),
        (allowed("required", "g"), AnyChoice(type="any", allowed=("g",))),
    ],
)
@pytest.mark.parametrize("parallel", [True, False])
def test_tool_choice_is_translated(choice: object, expected: object, parallel: bool) -> None:
    made = conversation(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel)
    if choice != "none":
        expected = expected.model_copy(update={"disable_parallel_tool_use": not parallel})
    assert made.tool_choice == expected
    assert len(made.tools) == len(TOOLS)


@pytest.mark.parametrize("choice", ["auto", "none", None])
@pytest.mark.parametrize("tools", [[], None])
def test_choice_without_tools_that_needs_none_is_no_error(choice: object, tools: object) -> None:
    assert conversation(tools=tools, tool_choice=choice).tools == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": "required"}, "tool_choice: There is no tool that could be called"),
        ({"tool_choice": named("f")}, "tool_choice: Tool 'f' not found in `tools`"),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", "f", "x")},
            "tool_choice: Tool 'x' not found in `tools`",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("required")},
            "tool_choice: There is no tool that could be called",
        ),
        (
            {"tools": TOOLS, "tool_choice": "any"},
            "tool_choice: Input should be none, auto, required, or an object that names a tool or"
            " `allowed_tools`",
        ),
        ({"tools": [{"type": "function"}]}, "tools.0.function: Field required"),
        ({"tools": [F, {"type": "custom"}]}, "tools.1.custom: Field required"),
        (
            {"tools": [F, {"custom": {"name": "p", "format": {"type": "grammar"}}}]},
            "tools.1.custom.format.grammar: Field required",
        ),
        (
            {"tools": [{"custom": {"name": "p", "format": {"grammar": {"syntax": "gbnf"}}}}]},
            "tools.0.custom.format.grammar.syntax: Input should be 'lark' or 'regex'",
        ),
        ({"top_logprobs": 1}, "top_logprobs: Only allowed if `logprobs` is true"),
        ({"modalities": ["text", "audio"]}, "modalities: This server does not support it"),
        ({"audio": {"voice": "alloy"}}, "audio: This server does not support it"),
        (
            {"functions": [{"name": "f"}]},
            "functions: This server supports their successor `tools` alone",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema: Field required",
        ),
        (
            {
                "response_format": {"type": "json_object"},
                "messages": [*CALL["messages"], {"role": "assistant", "content": "{"}],
            },
            "response_format: The last message is the assistant's, and its continuation cannot be"
            " held to a format",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, object], message: str) -> None:
    assert refusal(**fields) == message


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages.0.tool_calls.0.function.name",
        ),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"name": "a b"}]}, "tools.0.function.name"),
        ({"tools": 5}, "tools"),
        ({"tools": [{"type": {}, "name": "f"}]}, "tools.0.type"),
        ({"tools": [{"type": "mcp"}] * 1001}, "tools"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": "1"}, "presence_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {str(at): 1 for at in range(10_001)}}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": 5}, "stop"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_malformed_field_is_refused_with_its_path(fields: dict[str, object], path: str) -> None:
    assert refusal(**fields).startswith(f"{path}: ")


@pytest.mark.parametrize("field", ["stop", "messages.0.content"])
def test_field_that_may_be_a_text_says_so(field: str) -> None:
    fields = {"stop": 5} if field == "stop" else {"messages": [{"role": "user", "content": 5}]}
    assert refusal(**fields) == f"{field}: Input should be a valid string or list"


def test_deprecated_and_optional_fields_that_ask_for_nothing_are_accepted() -> None:
    assert conversation(functions=[], audio={}, modalities=[]).tools == ()


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_flat_list_of_allowed_tools_is_read(mode: str) -> None:
    flat = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "f"}]}
    nested = {"type": "allowed_tools", "allowed_tools": flat}
    choice = conversation(tools=[F], tool_choice=flat).tool_choice
    assert choice == conversation(tools=[F], tool_choice=nested).tool_choice
    assert choice is not None
    assert choice.allowed == ("f",)
    assert refusal(tool_choice={"type": "allowed_tools", "tools": []}).startswith(
        "tool_choice.allowed_tools.mode: "
    )


@pytest.mark.parametrize(
    ("form", "schema", "strict"),
    [
        ({"type": "json_object"}, {"type": "object"}, False),
        ({"type": "json_object", "schema": SCHEMA}, SCHEMA, False),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, SCHEMA, False),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}}, SCHEMA, True),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, {"type": "object"}, False),
    ],
)
def test_response_format_is_an_output_schema(form: object, schema: object, strict: bool) -> None:
    assert conversation(response_format=form).output_schema == {
        "type": "json_schema",
        "schema": schema,
        "strict": strict,
    }
    assert conversation(response_format={"type": "text"}).output_schema is None


def thinking(**fields: object) -> tuple[str, object, object]:
    made = conversation(**fields)
    assert made.thinking is not None
    return made.thinking.type, made.output_config.effort, made.thinking.display


@pytest.mark.parametrize(
    ("fields", "kind", "effort"),
    [
        ({}, "adaptive", None),
        ({"reasoning_effort": "high"}, "adaptive", "high"),
        ({"reasoning_effort": "none"}, "disabled", "none"),
        ({"reasoning": {"effort": "low"}}, "adaptive", "low"),
        ({"reasoning": {"enabled": False}}, "disabled", None),
        ({"enable_thinking": False}, "disabled", None),
        ({"enable_thinking": True}, "adaptive", None),
        ({"thinking": {"type": "disabled"}}, "disabled", None),
        ({"thinking": {"type": "enabled"}}, "adaptive", None),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "disabled", None),
        ({"chat_template_kwargs": {"thinking": False}}, "disabled", None),
        ({"chat_template_kwargs": {"reasoning_effort": "low"}}, "adaptive", "low"),
    ],
)
def test_every_form_of_thinking_is_read(
    fields: dict[str, object], kind: str, effort: str | None
) -> None:
    assert thinking(**fields) == (kind, effort, None)


def test_thought_can_be_left_out_and_bounded() -> None:
    assert thinking(reasoning={"exclude": True}) == ("adaptive", None, "omitted")
    made = conversation(reasoning={"max_tokens": 4000}).thinking
    assert (made.type, made.budget_tokens) == ("enabled", 4000)
    assert conversation(reasoning={"max_tokens": 5}).thinking.budget_tokens == 1024
