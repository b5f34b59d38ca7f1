import logging

import pytest

from pensieve.api.messages.request import decode, parse
from pensieve.api.messages.tools import AnyChoice, AutoChoice, InputGrammar, NamedChoice, NoChoice
from pensieve.errors import InvalidRequestError
from pensieve.openai.responses.conversation import translated
from pensieve.openai.responses.echo import response_to
from pensieve.openai.responses.request import InputTokensRequest, ResponsesRequest
from pensieve.openai.responses.tools import ToolRef, declared_tools

CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "patch", "description": "Edit."}
SEARCH = {"type": "web_search", "external_web_access": False}
SPACE = {"type": "namespace", "name": "mcp__x", "description": "X", "tools": [CLOCK, PATCH, SEARCH]}
TOOLS = [CLOCK, PATCH, SPACE, SEARCH]


def request(**fields):
    return ResponsesRequest.model_validate({"model": "tiny", "input": "Hi", **fields})


def translation(**fields):
    return translated(request(**fields))


def conversation(**fields):
    return translation(**fields).conversation


# The whole request.


def test_a_string_is_a_message_of_the_user() -> None:
    (turn,) = conversation(input="Hi").messages
    assert (turn.role, turn.content[0].text) == ("user", "Hi")


def test_instructions_are_the_system_prompt() -> None:
    assert [block.text for block in conversation(instructions="Be brief.").system] == ["Be brief."]
    assert conversation(instructions=None).system == ()


def test_stored_items_precede_those_of_the_request() -> None:
    stored = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    turns = translated(request(input="3"), stored).conversation.messages
    assert [(turn.role, turn.content[0].text) for turn in turns] == [
        ("user", "1"),
        ("assistant", "2"),
        ("user", "3"),
    ]


def test_a_request_with_an_empty_input_is_empty() -> None:
    assert translation(input="").is_empty
    assert not translation(input="Hi").is_empty
    assert not translation(input=[{"role": "developer", "content": "Hi"}]).is_empty


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "input: Field required"),
        ({"input": None, "instructions": "Be brief."}, "input: Field required"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "input: Field required"),
        ({"input": []}, "input: at least one item must have content"),
        ({"input": [{"type": "item_of_tomorrow"}]}, "input: at least one item must have content"),
        ({"input": [{"role": "system", "content": ""}]}, "input: at least one item must have"),
        ({"input": 5}, "input: Input should be a valid string or list"),
    ],
)
def test_a_request_without_input_is_refused(fields, error) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        translated(decode(ResponsesRequest, fields))
    assert refusal.value.message.startswith(error)


def test_a_continued_response_and_a_count_need_no_input() -> None:
    stored = [{"role": "user", "content": "1"}]
    assert not translated(decode(ResponsesRequest, {}), stored).is_empty
    assert translated(decode(InputTokensRequest, {"instructions": "Be brief."})).is_empty


@pytest.mark.parametrize(
    ("effort", "thinking"), [(None, "adaptive"), ("high", "adaptive"), ("none", "disabled")]
)
def test_an_effort_of_none_alone_switches_thinking_off(effort, thinking) -> None:
    call = conversation(reasoning={"effort": effort, "summary": "auto"})
    assert (call.thinking.type, call.output_config.effort) == (thinking, effort)


@pytest.mark.parametrize(
    ("form", "schema", "is_strict"),
    [
        ({"type": "json_object"}, {"type": "object"}, False),
        ({"type": "json_schema", "schema": {"type": "array"}}, {"type": "array"}, False),
        ({"type": "json_schema", "schema": {"a": 1}, "strict": True}, {"a": 1}, True),
    ],
)
def test_a_text_format_becomes_the_schema_of_the_answer(form, schema, is_strict) -> None:
    found = conversation(text={"format": form, "verbosity": "low"}).output_schema
    assert found == {"type": "json_schema", "schema": schema, "strict": is_strict}
    assert conversation(text={"format": {"type": "text"}}).output_schema is None


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"conversation": "c"}, "conversation: This server does not support it"),
        ({"background": True}, "background: This server does not support it"),
        ({"prompt": {"id": "p"}}, "prompt: This server does not support it"),
        ({"n": 2}, "n: This server does not support it"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema: Field required"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type: Input should be 'text'"),
        ({"tools": [{"type": "function"}]}, "tools.0.name: Field required"),
        ({"tools": [SEARCH, SPACE | {"tools": [{"name": "?"}]}]}, "tools.1.tools.0.name: String"),
        ({"tool_choice": 3}, "tool_choice: Input should be none, auto"),
        ({"tool_choice": "required"}, "tool_choice: There is no tool"),
        ({"tool_choice": {"type": "web_search"}, "tools": TOOLS}, "tool_choice: Tool 'web_search'"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice: Tool 'x' not found"),
        ({"tool_choice": {}}, "tool_choice: Input should be none, auto"),
        ({"tool_choice": {"type": "function"}}, "tool_choice: Input should be none, auto"),
        ({"tool_choice": {"type": "custom", "custom": 5}}, "tool_choice: Input should be none"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice: Tool 'x' not found",
        ),
        (
            {"input": [{"role": "user", "content": "x"}, {"type": "additional_tools", "tools": 5}]},
            "input.1.tools: ",
        ),
        (
            {"input": [{"type": "additional_tools", "tools": [CLOCK, {"name": "?"}]}]},
            "input.0.tools.1.name: ",
        ),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice: `mode` and `tools` are"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]}},
            "tool_choice: There is no tool",
        ),
        (
            {
                "input": [{"role": "assistant", "content": "{"}],
                "text": {"format": {"type": "json_object"}},
            },
            "text.format: The last item is the assistant's",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_path(fields, error) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        translation(**fields)
    assert refusal.value.message.startswith(error)


def test_unknown_fields_and_values_that_ask_for_nothing_are_accepted() -> None:
    translation(
        background=False,
        conversation=None,
        prompt=None,
        top_logprobs=0,
        truncation="auto",
        client_metadata={"a": 1},
        include=["file_search_call.results"],
        brand_new={"x": []},
    )


# Tools.


def test_every_tool_that_a_model_can_call_is_shown_by_one_name() -> None:
    tools = conversation(tools=TOOLS).tools
    assert [tool.name for tool in tools] == ["clock", "patch", "mcp__x__clock", "mcp__x__patch"]
    assert tools[1].input_schema == {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_takes_none() -> None:
    fields = {"type": "function", "name": "now", "strict": True, "description": None}
    (tool,) = declared_tools([fields]).tools
    assert tool.input_schema == {"type": "object", "properties": {}}
    assert (tool.strict, tool.description) == (True, "")
    assert declared_tools([CLOCK]).tools[0].strict is False
    assert declared_tools([CLOCK]).tools[0].input_schema == CLOCK["parameters"]


def test_tools_that_cannot_be_run_here_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pensieve.openai")
    assert declared_tools(TOOLS).paths == (
        "tools.0",
        "tools.1",
        "tools.2.tools.0",
        "tools.2.tools.1",
    )
    assert "web_search" in caplog.text


def test_a_tool_is_known_by_kind_name_and_namespace() -> None:
    tools = translation(tools=TOOLS).tools
    assert tools.ref("mcp__x__patch") == ToolRef("custom", "patch", "mcp__x")
    assert tools.ref("clock") == ToolRef("function", "clock")
    assert tools.ref("unknown") == ToolRef("function", "unknown")
    assert tools.model_name("clock", "mcp__x") == "mcp__x__clock"
    assert tools.model_name("gone", "mcp__y") == "mcp__y__gone"


def test_joined_names_are_short_and_unique_and_the_same_in_each_request() -> None:
    tools = [
        {"type": "function", "name": "a__b"},
        {"type": "namespace", "name": "a", "tools": [{"type": "function", "name": "b"}]},
        {"type": "namespace", "name": "n" * 70, "tools": [{"name": "x"}, {"name": "y"}]},
        {"type": "namespace", "name": "o. k", "tools": [{"type": "function", "name": "z"}]},
    ]
    names = [tool.name for tool in declared_tools(tools).tools]
    assert len(set(names)) == 5
    assert all(len(name) <= 64 for name in names)
    assert names[0] == "a__b"
    assert names[-1] == "o_k__z"
    assert declared_tools(tools).model_name("b", "a") == names[1]
    assert names == [tool.name for tool in declared_tools(tools).tools]


def test_a_grammar_is_described_and_enforced() -> None:
    grammar = {"syntax": "lark", "definition": 'start: "x"'}
    tool = PATCH | {"format": {"type": "grammar", **grammar}}
    (shown,) = declared_tools([SPACE | {"tools": [tool]}]).tools
    assert shown.name == "mcp__x__patch"
    assert shown.description == 'Edit.\n\nThe input matches this lark grammar:\nstart: "x"'
    assert shown.input_schema["properties"] == {"input": {"type": "string"}}
    assert shown.input_grammar == InputGrammar(**grammar)
    (free,) = declared_tools([PATCH | {"format": {"type": "text", **grammar}}]).tools
    assert (free.description, free.input_grammar) == ("Edit.", None)


def test_tools_that_are_added_later_are_known() -> None:
    added = {"type": "additional_tools", "tools": [PATCH]}
    call = translation(input=[{"role": "user", "content": "Hi"}, added], tools=[CLOCK])
    assert [tool.name for tool in call.conversation.tools] == ["clock"]
    assert call.tools.ref("patch") == ToolRef("custom", "patch")
    later = translated(request(input="Hi"), [added])
    assert later.tools.ref("patch") == ToolRef("custom", "patch")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, AutoChoice(type="auto")),
        ("auto", AutoChoice(type="auto")),
        ("none", NoChoice(type="none")),
        ("required", AnyChoice(type="any")),
        ({"type": "function", "name": "clock"}, NamedChoice(type="tool", name="clock")),
        ({"type": "custom", "name": "patch"}, NamedChoice(type="tool", name="patch")),
        (
            {"type": "function", "name": "clock", "namespace": "mcp__x"},
            NamedChoice(type="tool", name="mcp__x__clock"),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "clock"}, {"type": "web_search"}],
            },
            AutoChoice(type="auto", allowed=("clock",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "custom", "name": "patch"}],
            },
            AnyChoice(type="any", allowed=("patch",)),
        ),
    ],
)
def test_tool_choices_become_choices_by_the_models_names(choice, expected) -> None:
    assert conversation(tools=TOOLS, tool_choice=choice).tool_choice == expected


def test_parallel_calls_can_be_switched_off() -> None:
    choice = conversation(tools=TOOLS, parallel_tool_calls=False).tool_choice
    assert choice == AutoChoice(type="auto", disable_parallel_tool_use=True)


# What a response repeats.


def test_a_response_repeats_the_request() -> None:
    fields = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "max_tool_calls": 2,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "previous_response_id": "resp_1",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "clock"},
        "tools": [SEARCH, CLOCK | {"strict": True}],
        "top_p": 0.9,
        "user": "u",
    }
    response = response_to(request(**fields), created_at=7).model_dump(mode="json")
    clock = CLOCK | {"strict": True}
    assert response["created_at"] == 7
    assert {name: response[name] for name in fields} == fields | {"tools": [SEARCH, clock]}


def test_a_response_says_what_the_request_leaves_open() -> None:
    response = response_to(request(tools=[{"type": "function", "name": "f"}]), created_at=7)
    assert response.text == {"format": {"type": "text"}}
    assert response.tool_choice == "auto"
    assert response.reasoning == {"effort": None, "summary": None}
    assert response.tools == (
        {"type": "function", "name": "f", "parameters": None, "strict": None},
    )


@pytest.mark.parametrize(
    ("fields", "has_summary", "seals_thoughts"),
    [
        ({}, False, False),
        ({"reasoning": {"summary": "auto"}}, True, False),
        ({"reasoning": {"generate_summary": "detailed"}}, True, False),
        ({"include": ["reasoning.encrypted_content"]}, True, True),
    ],
)
def test_thoughts_go_where_the_client_reads_them(fields, has_summary, seals_thoughts) -> None:
    call = request(**fields)
    assert (call.has_summary, call.seals_thoughts) == (has_summary, seals_thoughts)


def test_nulls_are_absent_fields() -> None:
    names = ResponsesRequest.model_fields.keys() - {"model"}
    nulls = ",".join(f'"{name}":null' for name in sorted(names))
    assert parse(ResponsesRequest, f'{{"model":"m",{nulls}}}'.encode()) == ResponsesRequest(
        model="m"
    )


def test_choices_are_read_in_the_form_of_chat_completions() -> None:
    for flat, nested in (
        ({"name": "clock"}, {"function": {"name": "clock"}}),
        (
            {"mode": "auto", "tools": [{"type": "function", "function": {"name": "clock"}}]},
            {"allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "clock"}]}},
        ),
    ):
        kind = {"type": "function" if "name" in flat else "allowed_tools"}
        found = [
            conversation(tools=TOOLS, tool_choice=kind | fields).tool_choice
            for fields in (flat, nested)
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("is_function_first", [True, False])
def test_a_joined_name_is_not_that_of_a_function(is_function_first) -> None:
    function = {"type": "function", "name": "a__b"}
    space = {"type": "namespace", "name": "a", "tools": [{"type": "function", "name": "b"}]}
    tools = [function, space] if is_function_first else [space, function]
    declared = declared_tools(tools)
    names = [tool.name for tool in declared.tools]
    assert len(set(names)) == 2
    assert declared.ref("a__b") == ToolRef("function", "a__b")
    assert declared.model_name("b", "a") != "a__b"
    # The same in each request, in whatever order.
    assert declared.model_name("b", "a") == declared_tools(tools[::-1]).model_name("b", "a")


@pytest.mark.parametrize("text", [{"format": {}}, {"format": None}, {}])
def test_a_response_has_the_type_of_its_text_format(text) -> None:
    assert response_to(request(text=text), created_at=0).text == {"format": {"type": "text"}}
