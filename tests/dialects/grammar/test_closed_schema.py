"""Schemas of tool arguments: objects that list their properties admit no others."""

from typing import Any

import jsonschema
import pytest

from pensieve.dialects.grammar.closed_schema import (
    COMBINED_DEPTH,
    MAX_DEPTH,
    MAX_NODES,
    closed_object,
)
from pensieve.dialects.grammar.schema_simplifier import arguments_schema

TEXT = {"type": "string"}


def listing(*names: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(names, TEXT), **more}


def of_v(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"v": part}}


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
        (
            of_v({**listing("a"), "type": ["object", "null"], "allOf": [{}]}),
            [{"v": None}, {"v": {"a": "x"}}],
            [{"v": 5}, {"v": []}, {"v": {"c": 1}}],
        ),
        (
            of_v({**listing("a"), "anyOf": [listing("b"), listing("c")]}),
            [{"v": {"a": "x", "b": "x"}}, {"v": {"c": "x"}}],
            [{"v": {"b": "x", "c": "x"}}],
        ),
        (listing("a", "b", "c", minProperties=1), [{"a": "x"}], [{}]),
        (
            listing("a", "b", "c", maxProperties=2, allOf=[{}]),
            [{"a": "x", "b": "x"}],
            [{"a": "x", "b": "x", "c": "x"}],
        ),
        (of_v({"items": listing("q")}), [{"v": [{"q": "x"}]}], [{"v": [{"r": "x"}]}]),
        (of_v({"prefixItems": [listing("q")]}), [{"v": [{"q": "x"}]}], [{"v": [{"r": "x"}]}]),
        (of_v({"oneOf": [listing("q"), TEXT]}), [{"v": {"q": "x"}}, {"v": "x"}], [{"v": {"r": 1}}]),
        (
            of_v({"type": "object", "additionalProperties": listing("q")}),
            [{"v": {"b": {"q": "x"}}}],
            [{"v": {"b": {"r": "x"}}}],
        ),
        (
            of_v({"type": "object", "patternProperties": {"^x": listing("q")}}),
            [{"v": {"xy": {"q": "x"}}}],
            [{"v": {"xy": {"r": "x"}}}],
        ),
        (
            {
                "properties": {"v": {"$ref": "#/definitions/F", "minProperties": 1}},
                "definitions": {"F": listing("q")},
            },
            [{"v": {"q": "x"}}],
            [{"v": {}}, {"v": {"r": "x"}}],
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


def test_definitions_are_only_in_the_whole_schema() -> None:
    part = {"type": "string", "$defs": {}, "definitions": {}}
    closed = closed_object({"properties": {"v": part}, "$defs": {"F": {}}, "definitions": {}})
    assert closed == {**of_v(TEXT), "additionalProperties": False}


def test_objects_are_closed_down_to_the_maximum_depth() -> None:
    count = MAX_DEPTH - 3 * (COMBINED_DEPTH + 1) + 1
    schema: dict[str, Any] = {"properties": {}}
    for _ in range(count):
        schema = {"properties": {"v": schema}}
    for _ in range(3):
        schema = {"properties": {"v": schema}, "allOf": [{}]}
    validator = jsonschema.Draft202012Validator(closed_object(of_v(schema)))

    def admits_other_at(depth: int) -> bool:
        value: dict[str, Any] = {"other": 1}
        for _ in range(depth):
            value = {"v": value}
        return validator.is_valid(value)

    assert [admits_other_at(depth) for depth in range(count + 5)] == [
        *[False] * (count + 3),
        *[True] * 2,
    ]


def test_objects_are_closed_up_to_the_maximum_number() -> None:
    parts: list[Any] = [{"properties": {}}] * MAX_NODES
    closed: Any = closed_object(of_v({"prefixItems": parts}))["properties"]
    items = closed["v"]["prefixItems"]
    assert items.count({}) == 1
    assert items.count({"properties": {}, "additionalProperties": False}) == MAX_NODES - 1


def test_endlessly_growing_combinations_stay_open() -> None:
    node = {"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"next": {"$ref": "#/$defs/N"}}}]}
    a = {"properties": {"next": {"allOf": [{"$ref": "#/$defs/N"}, {"$ref": "#/$defs/A"}]}}}
    simplified = arguments_schema({"$ref": "#/$defs/N", "$defs": {"N": node, "A": a}})
    assert jsonschema.Draft202012Validator(simplified).is_valid({"next": {"next": {}}})
