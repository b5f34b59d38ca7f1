"""What is asked of an answer: tools and choice, schemas that are held to and those that cannot be."""

from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, decode
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


def plan(model: str = "hermes", **fields: Any) -> AnswerConstraints:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    renderer = PromptRenderer(MODELS[model], DIALECTS[model])
    return renderer.render(decode(Conversation, body)).plan


def lark(**fields: Any) -> str:
    grammar = plan(**fields).grammar
    assert grammar is not None
    return grammar.lark


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        plan(**fields)
    return caught.value.message


def test_an_answer_that_nothing_is_asked_of_has_no_grammar() -> None:
    assert plan().grammar is None
    assert plan().form.tools == {}


def test_the_tools_at_hand_are_those_that_the_grammar_lets_through_and_that_are_read() -> None:
    made = plan(tools=[WEATHER, CLOCK])
    assert list(made.form.tools) == ["weather", "clock"]
    assert 'weather\\", \\"arguments' in lark(tools=[WEATHER, CLOCK])


@pytest.mark.parametrize(
    ("choice", "tools", "least", "most"),
    [
        ({"type": "auto"}, ["weather", "clock"], 0, 16),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["weather", "clock"], 0, 1),
        ({"type": "any"}, ["weather", "clock"], 1, 16),
        ({"type": "any", "disable_parallel_tool_use": True}, ["weather", "clock"], 1, 1),
        ({"type": "tool", "name": "clock"}, ["clock"], 1, 1),
        ({"type": "none"}, ["weather", "clock"], 0, 0),
    ],
)
def test_the_choice_says_how_many_of_which(
    choice: dict[str, Any], tools: list[str], least: int, most: int
) -> None:
    made = plan(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert made.grammar is not None
    wanted = made.grammar.wanted
    assert [tool.name for tool in wanted.tools] == tools
    assert (wanted.min_calls, wanted.max_calls) == (least, most)
    assert list(made.form.tools) == (tools if most else [])
    assert made.form.has_text == (least == 0)


def test_a_deferred_tool_can_be_chosen_by_name() -> None:
    tools = [WEATHER, CLOCK | {"defer_loading": True}]
    made = plan(tools=tools, tool_choice={"type": "tool", "name": "clock"})
    assert list(made.form.tools) == ["clock"]


def test_a_schema_that_is_too_complex_is_not_held_to_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = plan(tools=[WEATHER, {"name": "deep", "input_schema": DEEP}])
    assert made.grammar is not None
    assert [tool.schema == FREE_OBJECT for tool in made.grammar.wanted.tools] == [False, True]
    assert "tool deep: its input_schema is too complex" in caplog.text


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
            "output_config.format.schema: For 'array' type, properties uniqueItems are not supported",
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
def test_what_was_promised_and_cannot_be_held_to_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    assert refusal(**fields) == message


def test_a_tool_that_the_engine_complains_of_is_freed_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grammar = plan(tools=[WEATHER, WEATHER | {"name": "other"}]).grammar
    assert grammar is not None
    line = 1 + next(
        at for at, text in enumerate(grammar.lark.splitlines()) if text.startswith("tool1_input")
    )
    freed = grammar.relaxed(f"The grammar cannot be followed: at {line}(14): failed to compile")
    assert freed is not None
    assert [tool.schema == FREE_OBJECT for tool in freed.wanted.tools] == [False, True]
    assert "tool other: no grammar can be made" in caplog.text
    both = freed.relaxed("too much to compile")
    assert both is not None
    assert all(tool.schema == FREE_OBJECT for tool in both.wanted.tools)
    assert both.relaxed("too much to compile") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [WEATHER | {"strict": True}]},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ],
)
def test_nothing_that_was_promised_is_freed(fields: dict[str, Any]) -> None:
    grammar = plan(**fields).grammar
    assert grammar is not None
    with pytest.raises(InvalidRequestError, match=r"Schema is too complex for compilation\."):
        grammar.relaxed("too much to compile")


def test_the_form_of_an_answer_is_told_to_the_model_and_held_to() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    renderer = PromptRenderer(MODELS["hermes"], DIALECTS["hermes"])
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    prompt = renderer.render(decode(Conversation, body | {"output_config": {"format": form}}))
    text = "".join(map(MODELS["hermes"].detokenizer().feed, prompt.tokens))
    assert '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}' in text
    assert "%json" in lark(output_config={"format": form})


def test_a_tool_that_must_be_used_comes_before_the_form_of_the_answer() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    made = plan(tools=[CLOCK], tool_choice={"type": "any"}, output_config={"format": form})
    assert made.grammar is not None
    assert made.grammar.wanted.schema is None
