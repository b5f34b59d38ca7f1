"""Constrain answers by tools, tool choice and schemas, including schemas that do not compile."""

from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, decode
from pensieve.api.messages.tools import InputGrammar, TextTool
from pensieve.dialects.grammar.schema_simplifier import FREE_OBJECT
from pensieve.errors import InvalidRequestError
from pensieve.prompt.constraints import AnswerConstraints
from pensieve.prompt.render import PromptRenderer
from tests.prompt.chat_models import DIALECTS, MODELS

WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CLOCK = {"name": "clock", "input_schema": {"type": "object"}}
DEEP: dict[str, Any] = {"type": "object"}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"x": DEEP}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def constraints_of(model: str = "hermes", **fields: Any) -> AnswerConstraints:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    renderer = PromptRenderer(MODELS[model], DIALECTS[model])
    return renderer.render(decode(Conversation, body)).constraints


def lark(**fields: Any) -> str:
    grammar = constraints_of(**fields).grammar
    assert grammar is not None
    return grammar.lark


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        constraints_of(**fields)
    return caught.value.message


def test_unconstrained_answer_has_no_grammar() -> None:
    assert constraints_of().grammar is None
    assert constraints_of().form.tools == {}


def test_grammar_and_parser_have_the_callable_tools() -> None:
    constraints = constraints_of(tools=[WEATHER, CLOCK])
    assert list(constraints.form.tools) == ["weather", "clock"]
    assert 'weather\\", \\"arguments' in lark(tools=[WEATHER, CLOCK])


@pytest.mark.parametrize(
    ("choice", "tools", "min_calls", "max_calls"),
    [
        ({"type": "auto"}, ["weather", "clock"], 0, 16),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["weather", "clock"], 0, 1),
        ({"type": "any"}, ["weather", "clock"], 1, 16),
        ({"type": "any", "disable_parallel_tool_use": True}, ["weather", "clock"], 1, 1),
        ({"type": "tool", "name": "clock"}, ["clock"], 1, 1),
        ({"type": "none"}, ["weather", "clock"], 0, 0),
    ],
)
def test_tool_choice_determines_tools_and_number_of_calls(
    choice: dict[str, Any], tools: list[str], min_calls: int, max_calls: int
) -> None:
    constraints = constraints_of(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert constraints.grammar is not None
    limits = constraints.grammar.limits
    assert [tool.name for tool in limits.tools] == tools
    assert (limits.min_calls, limits.max_calls) == (min_calls, max_calls)
    assert list(constraints.form.tools) == (tools if max_calls else [])
    assert constraints.form.has_text == (min_calls == 0)


def test_deferred_tool_can_be_chosen_by_name() -> None:
    tools = [WEATHER, CLOCK | {"defer_loading": True}]
    constraints = constraints_of(tools=tools, tool_choice={"type": "tool", "name": "clock"})
    assert list(constraints.form.tools) == ["clock"]


def test_too_complex_schema_is_not_enforced_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    constraints = constraints_of(tools=[WEATHER, {"name": "deep", "input_schema": DEEP}])
    assert constraints.grammar is not None
    assert [tool.schema == FREE_OBJECT for tool in constraints.grammar.limits.tools] == [
        False,
        True,
    ]
    assert "the input_schema of a tool is too complex" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"tools": [CLOCK, {"name": "deep", "input_schema": DEEP, "strict": True}]},
            "tools.1.custom.input_schema: Schema is too complex for compilation.",
        ),
        (
            {
                "tools": [
                    {
                        "name": "odd",
                        "input_schema": {"type": "object", "not": {}, "if": {}},
                        "strict": True,
                    }
                ]
            },
            "tools.0.custom: For 'object' type, properties if, not are not supported",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": DEEP}}},
            "output_config.format.schema: Schema is too complex for compilation.",
        ),
        (
            {
                "output_format": {
                    "type": "json_schema",
                    "schema": {"uniqueItems": True, "type": "array"},
                }
            },
            "output_config.format.schema: For 'array' type, properties uniqueItems are not "
            "supported",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}},
            "output_config.format.schema: For 'object' type, properties not are not supported",
        ),
        (
            {
                "tools": [
                    {
                        "name": "odd",
                        "strict": True,
                        "input_schema": {
                            "type": "object",
                            "properties": {
                                "a": {"type": "array", "items": {"anyOf": [{}, {"not": {}}]}},
                                "b": {"not": {}},
                            },
                            "if": {},
                        },
                    }
                ]
            },
            "tools.0.custom: For 'object' type, properties if, not (at properties.b) are not"
            " supported",
        ),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema: Input should be an object",
        ),
        (
            {"output_config": {"format": "json"}},
            "output_config.format.type: Input should be 'json_schema'",
        ),
    ],
)
def test_strict_schema_that_cannot_be_enforced_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    assert refusal(**fields) == message


def test_only_the_tool_that_fails_to_compile_is_relaxed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grammar = constraints_of(tools=[WEATHER, WEATHER | {"name": "other"}]).grammar
    assert grammar is not None
    line = 1 + next(
        at for at, text in enumerate(grammar.lark.splitlines()) if text.startswith("tool1_input")
    )
    freed = grammar.relaxed(f"The grammar cannot be followed: at {line}(14): failed to compile")
    assert freed is not None
    assert [tool.schema == FREE_OBJECT for tool in freed.limits.tools] == [False, True]
    assert "the input_schema of tool 2 failed to compile" in caplog.text
    both = freed.relaxed("too much to compile")
    assert both is not None
    assert all(tool.schema == FREE_OBJECT for tool in both.limits.tools)
    assert both.relaxed("too much to compile") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [WEATHER | {"strict": True}]},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ],
)
def test_strict_schemas_are_never_relaxed(fields: dict[str, Any]) -> None:
    grammar = constraints_of(**fields).grammar
    assert grammar is not None
    inner = "The grammar cannot be followed: at 2(4): failed to compile JSON schema: "
    for error, reason in {
        "too much to compile": "Schema is too complex for compilation.",
        inner + "Unsatisfiable schema: required property 'a' is unsatisfiable": (
            "Schema allows no value: required property 'a' is unsatisfiable"
        ),
        inner + 'Unsatisfiable schema: Regex is empty: (And "a" "b")': "Schema allows no value.",
        inner + "regex parse error:": "Schema has a pattern that is no regular expression.",
    }.items():
        with pytest.raises(InvalidRequestError) as caught:
            grammar.relaxed(error)
        assert caught.value.message.partition(": ")[2] == reason


def text_tool(definition: str, name: str = "patch") -> TextTool:
    text = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    grammar = InputGrammar(syntax="lark", definition=definition)
    return TextTool(type="custom", name=name, input_schema=text, input_grammar=grammar)


def with_text_tools(*tools: TextTool, **fields: Any) -> AnswerConstraints:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    conversation = decode(Conversation, body)
    conversation = conversation.model_copy(update={"tools": (*conversation.tools, *tools)})
    return PromptRenderer(MODELS["hermes"], DIALECTS["hermes"]).render(conversation).constraints


def test_grammar_of_a_text_tool_is_in_the_answers() -> None:
    grammar = with_text_tools(text_tool('start: "zebra"+')).grammar
    assert grammar is not None
    assert "zebra" in grammar.lark
    assert list(grammar.limits.texts) == ["patch"]


def test_grammar_of_a_tool_that_is_added_later_is_in_the_answers() -> None:
    tool = text_tool('start: "zebra"+').model_dump(exclude={"type"})
    added = {"role": "system", "content": [{"type": "tool_addition", "tool": tool}]}
    user = {"role": "user", "content": "hi"}
    grammar = with_text_tools(messages=[user, added]).grammar
    assert grammar is not None
    assert "zebra" in grammar.lark


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("start: A", "A is not defined"),
        ('start: "(" start ")" | /[^()]*/', "it is recursive, and then this model can"),
    ],
)
def test_grammar_that_cannot_be_enforced_is_refused_by_its_path(
    definition: str, reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        with_text_tools(text_tool(definition), tools=[CLOCK])
    message = "tools.1.custom.input_grammar: The grammar of patch cannot be enforced: "
    assert caught.value.message.startswith(message + reason)


def test_grammar_of_a_tool_that_may_not_be_called_is_not_read() -> None:
    assert with_text_tools(text_tool("?"), tool_choice={"type": "none"}).grammar is not None


def test_grammar_of_a_text_tool_is_never_relaxed() -> None:
    tools = (text_tool('start: "a"', "first"), text_tool('start: "b"', "second"))
    grammar = with_text_tools(*tools, tools=[WEATHER]).grammar
    assert grammar is not None
    # What may be at fault and is not promised is dropped first.
    freed = grammar.relaxed("too much to compile")
    assert freed is not None
    assert [tool.schema == FREE_OBJECT for tool in freed.limits.tools] == [True, False, False]
    with pytest.raises(InvalidRequestError, match="grammar of first cannot be enforced: too much"):
        freed.relaxed("too much")
    inner = "The grammar cannot be followed: "
    for error, reason in {
        f"{inner}parser error: Too many items (limit 20000; ff_tokens)": "it is too complex",
        f"{inner}at 2(4): Unsatisfiable schema: schema is false": "it matches no text",
    }.items():
        with pytest.raises(InvalidRequestError, match=f"cannot be enforced: {reason}$"):
            freed.relaxed(error)
    line = 1 + next(
        at for at, text in enumerate(grammar.lark.splitlines()) if text.startswith("tool2_input")
    )
    with pytest.raises(InvalidRequestError, match=r"^tools\.2\.custom.*grammar of second"):
        grammar.relaxed(f"at {line}(14): no")


def test_grammar_of_a_text_tool_is_not_lost_with_the_output_format() -> None:
    form = {"type": "json_schema", "schema": SCHEMA, "strict": False}
    grammar = with_text_tools(text_tool('start: "a"'), output_config={"format": form}).grammar
    assert grammar is not None
    freed = grammar.relaxed("too much")
    assert freed is not None
    with pytest.raises(InvalidRequestError, match="grammar of patch"):
        freed.relaxed("too much")


@pytest.mark.parametrize("model", ["hermes", "chatml"])  # one that thinks, and one that does not
def test_output_format_is_described_to_the_model_and_enforced(model: str) -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    renderer = PromptRenderer(MODELS[model], DIALECTS[model])
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    prompt = renderer.render(decode(Conversation, body | {"output_config": {"format": form}}))
    text = "".join(map(MODELS[model].detokenizer().feed, prompt.tokens))
    assert '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}' in text
    assert "%json" in lark(model=model, output_config={"format": form})


@pytest.mark.parametrize("schema", [DEEP, {"type": "string", "pattern": "(?=x)"}])
def test_output_format_that_is_not_strict_is_enforced_as_far_as_possible(
    schema: dict[str, Any],
) -> None:
    form = {"type": "json_schema", "schema": schema}
    assert "output_config.format.schema: " in refusal(output_config={"format": form})
    grammar = constraints_of(output_config={"format": form | {"strict": False}}).grammar
    assert grammar is not None
    assert grammar.limits.schema is not None


def test_output_format_that_fails_to_compile_is_any_object_unless_it_is_strict() -> None:
    form = {"type": "json_schema", "schema": SCHEMA, "strict": False}
    grammar = constraints_of(output_config={"format": form}).grammar
    assert grammar is not None
    freed = grammar.relaxed("too much to compile")
    assert freed is not None
    assert freed.limits.schema == FREE_OBJECT
    assert freed.lark != grammar.lark
    assert freed.relaxed("too much to compile") is None


def test_required_tool_use_overrides_the_output_format() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    constraints = constraints_of(
        tools=[CLOCK], tool_choice={"type": "any"}, output_config={"format": form}
    )
    assert constraints.grammar is not None
    assert constraints.grammar.limits.schema is None
