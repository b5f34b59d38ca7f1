"""Invariant of arguments: the grammar admits all valid arguments, and they are parsed unchanged."""

import json
import os
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls
from pensieve.dialects.grammar.answer_grammar import CallLimits
from pensieve.dialects.grammar.schema_simplifier import arguments_schema
from pensieve.dialects.grammar.schema_validation import admits
from pensieve.dialects.grammar.tagged_values import tagged_values_of
from tests.dialects.cases import DIALECTS
from tests.dialects.grammar.test_answer_grammar import MARKS, matcher, tokens_of
from tests.dialects.pairs import Pair, pairs
from tests.reply.test_answer_parser import filled, meaning, read

SEAM = "\ue000"
MARK = re.compile("|".join(map(re.escape, MARKS)))
EXAMPLES = int(os.environ.get("PENSIEVE_LAW_EXAMPLES", "60"))


def spelled_out(text: str) -> str:
    """Split each mark in the text, so that none is a single token."""
    return MARK.sub(lambda found: found[0][0] + SEAM + found[0][1:], text)


def check(name: str, pair: Pair, *, has_tokens: bool, size: int) -> None:
    schema, value = pair
    dialect = DIALECTS[name]
    simplified = arguments_schema(schema)
    form = dialect.calls.parameters
    slots = {"quartz": tagged_values_of(simplified, form)} if form is not None else None
    spelled = filled(format_calls(dialect.calls, [ToolCall("quartz", value)], spelled_out, slots))
    text = spelled.replace(SEAM, "")

    limits = CallLimits([ToolSpec("quartz", "", simplified)], min_calls=1, max_calls=1)
    at = matcher(dialect, limits, has_tokens)
    tokens = [token for part in spelled.split(SEAM) for token in tokens_of(part, has_tokens)]
    assert at.try_consume_tokens(tokens) == len(tokens)
    assert at.is_accepting()

    answer = AnswerFormat(dialect, {"quartz": schema}, has_text=False)
    expected = json.dumps([("quartz", value)])
    assert json.dumps(meaning(read(answer, [text]))) == expected
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert json.dumps(meaning(read(answer, pieces))) == expected


@pytest.mark.parametrize("name", DIALECTS)
@given(pairs(), st.booleans(), st.integers(1, 40))
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_valid_arguments_are_admitted_by_the_grammar_and_parsed_unchanged(
    name: str, pair: Pair, has_tokens: bool, size: int
) -> None:
    check(name, pair, has_tokens=has_tokens, size=size)


def of_properties(value: dict[str, Any], **properties: Any) -> Pair:
    return {"type": "object", "properties": properties}, value


def closed_with(**properties: Any) -> dict[str, Any]:
    return {"properties": properties, "additionalProperties": False}


TEXT = {"type": "string"}
INTEGER = {"type": "integer"}
ANY_TEXT = {"type": ["string", "array", "null"]}
MARK_TEXTS = (
    *(
        "</parameter>",
        "a\n</parameter>\n</function>\n</tool_call>",
        '"</parameter>"',
        '"\\u003c/parameter>"',
    ),
    *(
        "</arg_value>",
        "x</arg_value>\n</tool_call>",
        '<|"|>',
        'a<|"|>,b:<|"|>}',
        "<escape>",
        "</invoke>",
    ),
    *(
        '"<\\/parameter>"',
        '"x"',
        '"',
        '"</parameter>',
        "\\u003c/arg_value>",
        '"\\"</arg_value>\\""',
    ),
)
# Each was a bug.
FOUND: list[Pair] = [
    # One choice lists the parameter, another admits it as a further one.
    (
        {
            "type": "object",
            "anyOf": [
                {"additionalProperties": {"type": "array", "items": TEXT}, "properties": {}},
                {"properties": {"a": {"type": ["string", "null"]}}, "additionalProperties": False},
            ],
        },
        {"a": given},
    )
    for given in ([], ["x"], None, "null", "[]")
]
# Further parameters, of which another choice lists one: as a text, as a number, or one of each.
FOUND += [
    ({"type": "object", "anyOf": [{"additionalProperties": further}, closed]}, value)
    for further, closed, value in [
        (INTEGER, closed_with(a=TEXT), {"a": 0, "path": 0}),
        (INTEGER, closed_with(a=TEXT), {"a": "0"}),
        (INTEGER, closed_with(a=TEXT, b=TEXT), {"c": 1, "b": 0, "a": 2}),
        (TEXT, closed_with(a=INTEGER), {"a": "0", "b": "1"}),
        (TEXT, closed_with(a=INTEGER), {"a": 0}),
        (ANY_TEXT, closed_with(a={"enum": ["x", 5]}), {"a": None, "b": ["y"]}),
    ]
]
FOUND += [of_properties({"a": text, "b": "x"}, a=TEXT, b=TEXT) for text in MARK_TEXTS]
FOUND += [of_properties({"a": one}, a=ANY_TEXT) for text in MARK_TEXTS for one in (text, [text])]
FOUND += [of_properties({"a": text}, a={"enum": [text, "x"]}) for text in MARK_TEXTS]
FOUND += [
    of_properties({"a": {"b": text}}, a={"type": "object", "properties": {"b": TEXT}})
    for text in MARK_TEXTS
]
FOUND += [
    of_properties({"a": one}, a={"anyOf": [{"enum": ["x", '["', "{"]}, {"type": "array"}]})
    for text in MARK_TEXTS
    for one in ([text], '["', "{", [], "x")
]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("has_tokens", [True, False], ids=["tokens", "text"])
def test_regression_arguments_are_admitted_and_parsed_unchanged(
    name: str, *, has_tokens: bool
) -> None:
    for pair in FOUND:
        check(name, pair, has_tokens=has_tokens, size=1)


@given(pairs())
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_drawn_schemas_admit_their_values_before_and_after_simplification(pair: Pair) -> None:
    schema, value = pair
    assume("oneOf" not in str(schema))  # where several hold, no value is taken; we take any
    assert jsonschema.Draft202012Validator(schema).is_valid(value)
    simplified = arguments_schema(schema)
    assert jsonschema.Draft202012Validator(simplified).is_valid(value)
    assert admits(simplified, value, simplified)
