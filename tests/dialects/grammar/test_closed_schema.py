"""Schemas of tool arguments: objects that list their properties admit no others."""

from typing import Any

import jsonschema
import pytest

from pensieve.dialects.grammar.schema_simplifier import arguments_schema

TEXT = {"type": "string"}


def listing(*names: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(names, TEXT), **more}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (listing(), [{}], [{"invented": "x"}]),
        (listing("a"), [{}, {"a": "x"}], [{"b": "x"}]),
        (listing("a", required=["b"]), [{"b": 1}], [{}, {"b": 1, "c": 1}]),
        (listing("a", additionalProperties=True), [{"b": 1}], [{"a": 1}]),
        (listing("a", additionalProperties=TEXT), [{"b": "x"}], [{"b": 1}]),
        ({"type": "object"}, [{}, {"b": 1}], []),
        ({"type": "object", "additionalProperties": TEXT}, [{"b": "x"}], [{"b": 1}]),
        ({"allOf": [listing("a"), listing("b")]}, [{"a": "x", "b": "y"}], [{"c": "x"}]),
        (
            {
                "type": "object",
                "anyOf": [listing("a", required=["a"]), listing("b", required=["b"])],
            },
            [{"a": "x"}, {"b": "x"}],
            [{}, {"c": "x"}],
        ),
        (
            listing("a", "b", anyOf=[{"required": ["a"]}, {"required": ["b"]}]),
            [{"a": "x"}, {"b": "x"}, {"a": "x", "b": "x"}],
            [{}, {"a": "x", "c": "x"}],
        ),
        (
            {"$ref": "#/$defs/In", "$defs": {"In": listing("q", required=["q"])}},
            [{"q": "v"}],
            [{}, {"q": "v", "r": "v"}],
        ),
        (listing("a", patternProperties={"^x-": TEXT}), [{"x-y": "v"}], []),
        (
            {"type": "object", "properties": {"v": listing("q")}},
            [{"v": {"q": "x"}}],
            [{"v": {"r": "x"}}],
        ),
        (
            {"type": "object", "properties": {"v": {**listing("q"), "type": ["object", "null"]}}},
            [{"v": None}, {"v": {"q": "x"}}],
            [{"v": {"r": "x"}}],
        ),
        (
            {"type": "object", "properties": {"v": {"type": "array", "items": {"$ref": "#"}}}},
            [{"v": [{"v": []}]}],
            [{"v": [{"w": 1}]}],
        ),
        (
            {
                "properties": {"v": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"allOf": [{"$ref": "#/$defs/B"}, listing("a")]}, "B": listing("b")},
            },
            [{"v": {"a": "x", "b": "y"}}],
            [{"v": {"c": "x"}}],
        ),
        (
            {
                "properties": {
                    "v": {"allOf": [listing("a"), listing("b")], "type": ["object", "null"]}
                }
            },
            [{"v": {"a": "x", "b": "y"}}],
            [{"v": None}, {"v": 5}, {"v": {"c": 1}}],
        ),
    ],
    ids=str,
)
def test_object_with_listed_properties_admits_no_others(
    schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    validator = jsonschema.Draft202012Validator(arguments_schema(schema))
    assert [value for value in good if not validator.is_valid(value)] == []
    assert [value for value in bad if validator.is_valid(value)] == []


def test_endlessly_growing_combinations_stay_open() -> None:
    node = {"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"next": {"$ref": "#/$defs/N"}}}]}
    a = {"properties": {"next": {"allOf": [{"$ref": "#/$defs/N"}, {"$ref": "#/$defs/A"}]}}}
    simplified = arguments_schema({"$ref": "#/$defs/N", "$defs": {"N": node, "A": a}})
    assert jsonschema.Draft202012Validator(simplified).is_valid({"next": {"next": {}}})
