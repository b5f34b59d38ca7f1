"""Present schemas to models, and explain how to escape marks in texts."""

from typing import Any

import pytest

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import gemma, glm, lfm2
from pensieve.dialects.tool_presentation import MAX_NODES, presented_schema, text_escaping_note
from tests.dialects.cases import DIALECTS

INNER = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


def test_references_are_resolved_and_merged_with_sibling_keywords() -> None:
    schema = {
        "type": "object",
        "properties": {"f": {"$ref": "#/$defs/F", "description": "d"}},
        "$defs": {"F": INNER},
    }
    assert presented_schema(schema, None) == {
        "type": "object",
        "properties": {"f": {**INNER, "description": "d"}},
    }


def test_schema_that_is_a_reference_is_presented_as_its_target() -> None:
    for key in ("$defs", "definitions"):
        assert presented_schema({"$ref": f"#/{key}/F", key: {"F": INNER}}, None) == INNER


def test_recursive_schema_keeps_its_definitions() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
    schema = {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": node}}
    assert presented_schema(schema, None) == {
        "type": "object",
        "properties": {"n": node},
        "$defs": {"N": node},
    }


def test_references_are_resolved_wherever_a_schema_is_and_in_no_value() -> None:
    found, resolved = (
        {
            **{key: {"^x": one} for key in ("patternProperties", "dependentSchemas")},
            **dict.fromkeys(("items", "additionalProperties", "contains", "not"), one),
            **dict.fromkeys(("if", "then", "else"), one),
            **{key: [one, True] for key in ("anyOf", "oneOf", "allOf", "prefixItems")},
        }
        for one in ({"$ref": "#/$defs/F"}, INNER)
    )
    assert presented_schema({**found, "$defs": {"F": INNER}}, None) == resolved
    values = {
        "default": {"a=b": 1, "$ref": "#/$defs/F"},
        "const": {"$ref": "#/$defs/F"},
        "enum": ["a=b", {"$ref": "#/$defs/F"}],
        "additionalProperties": False,
    }
    form = gemma.GEMMA_4.calls.parameters
    assert presented_schema({**values, "$defs": {"F": INNER}}, form) == values


def test_malformed_keywords_are_presented_unchanged() -> None:
    wrong = {"properties": 5, "required": "a=b", "patternProperties": 5, "allOf": 5, "items": 5}
    assert presented_schema(wrong, gemma.GEMMA_4.calls.parameters) == wrong


def test_references_are_resolved_up_to_the_maximum_number() -> None:
    properties = {f"p{at}": {"$ref": "#/$defs/F"} for at in range(MAX_NODES)}
    schema = {"properties": properties, "$defs": {"F": {"const": 1}}}
    parts: Any = presented_schema(schema, None)["properties"]
    # Each reference counts twice: itself, and what it refers to.
    assert list(parts.values()).count({"const": 1}) == MAX_NODES // 2


def test_references_that_double_each_other_stay_within_bounds() -> None:
    parts = {
        f"d{at}": {"properties": {key: {"$ref": f"#/$defs/d{at + 1}"} for key in "ab"}}
        for at in range(40)
    }
    presented = presented_schema({"$ref": "#/$defs/d0", "$defs": parts}, None)
    assert len(str(presented)) < 500_000


def test_schema_or_null_is_presented_as_nullable() -> None:
    schema = {"properties": {"f": {"anyOf": [INNER, {"type": "null"}], "default": None}}}
    assert presented_schema(schema, None) == {
        "properties": {"f": {**INNER, "default": None, "nullable": True}}
    }


def test_null_is_also_left_out_of_one_of_and_no_other_choice_is() -> None:
    null = {"type": "null"}
    nullable = {**INNER, "nullable": True}
    assert presented_schema({"oneOf": [null, INNER]}, None) == nullable
    for choices in ([INNER], [INNER, {"type": "string"}, null], [null, null]):
        assert presented_schema({"anyOf": choices}, None) == {"anyOf": choices}


@pytest.mark.parametrize(
    ("keyword", "dialect", "name"),
    [
        ("anyOf", lfm2.DIALECT, "a%3Db"),
        ("prefixItems", lfm2.DIALECT, "a=b"),
        ("anyOf", gemma.GEMMA_4, "a%3Db"),
        ("prefixItems", gemma.GEMMA_4, "a%3Db"),
    ],
)
def test_names_are_escaped_in_choices_and_inside_if_the_form_nests(
    keyword: str, dialect: Dialect, name: str
) -> None:
    schema = {keyword: [{"properties": {"a=b": {}}}, True]}
    presented = presented_schema(schema, dialect.calls.parameters)
    assert presented == {keyword: [{"properties": {name: {}}}, True]}


def test_parameters_are_presented_under_their_escaped_names() -> None:
    schema = {
        "type": "object",
        "properties": {"a=b": {"type": "object", "properties": {"c:d": {}}}, "file path": {}},
        "required": ["a=b"],
    }
    names = {
        form.name: list(presented_schema(schema, form.calls.parameters)["properties"])  # pyright: ignore[reportArgumentType]
        for form in (glm.DIALECT, lfm2.DIALECT, gemma.GEMMA_4)
    }
    assert names == {
        "glm": ["a=b", "file path"],
        "lfm2": ["a%3Db", "file%20path"],
        "gemma4": ["a%3Db", "file%20path"],
    }
    presented = str(presented_schema(schema, gemma.GEMMA_4.calls.parameters))
    assert "'c%3Ad'" in presented
    assert "'required': ['a%3Db']" in presented
    assert "'c:d'" in str(presented_schema(schema, lfm2.DIALECT.calls.parameters))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("hermes", ""),
        ("lfm2", ""),
        (
            "qwen-coder",
            "In a tool call, a text that contains </parameter> is written as a JSON string, "
            "with \\u003c for each <.",
        ),
        ("gemma4", 'In a tool call, a text that contains <|"|> is written as a JSON string.'),
    ],
)
def test_form_with_an_end_mark_explains_how_to_escape_it(name: str, note: str) -> None:
    assert text_escaping_note(DIALECTS[name].calls.parameters) == note
