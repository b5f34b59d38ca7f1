"""Validate values against schemas, compared with jsonschema."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.dialects.grammar.object_shapes import kinds_of
from pensieve.dialects.grammar.schema_validation import MAX_DEPTH, MAX_STEPS, admits, same

KINDS = ["object", "array", "string", "integer", "number", "boolean", "null"]
DEFINITIONS = {"N": {"properties": {"a": {"$ref": "#/$defs/N"}, "b": {"type": "integer"}}}}
kinds = st.sampled_from(KINDS)
bounds = st.integers(0, 2)
values = st.recursive(
    st.sampled_from([None, True, False, "", "x", "xyz", 0, 1, 1.0, 2.5, -1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=5,
)
keywords = {
    "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
    "const": values,
    "enum": st.lists(values, min_size=1, max_size=3),
    "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
    **dict.fromkeys(
        ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"], bounds
    ),
    **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], bounds),
    "$ref": st.just("#/$defs/N"),
}


def some(fields: dict[str, Any], most: int) -> st.SearchStrategy[Any]:
    keys = st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True)
    return keys.flatmap(lambda found: st.fixed_dictionaries({key: fields[key] for key in found}))


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    choices = st.lists(inner, min_size=1, max_size=2)
    parts = st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2)
    return some(
        {
            **keywords,
            "properties": parts,
            "additionalProperties": inner | st.booleans(),
            "items": inner | st.booleans(),
            "prefixItems": choices,
            "anyOf": choices,
            "allOf": choices,
        },
        3,
    )


schemas = st.recursive(some(keywords, 2), around, max_leaves=4)


@given(schemas, values)
@settings(max_examples=500)
def test_value_is_admitted_exactly_if_jsonschema_accepts_it(schema: Any, value: Any) -> None:
    whole = {**schema, "$defs": DEFINITIONS}
    is_valid = jsonschema.Draft202012Validator(whole).is_valid(value)
    assert admits(whole, value, whole) == is_valid
    if is_valid:
        assert admits({"type": sorted(kinds_of(whole, whole))}, value, whole)


@pytest.mark.parametrize(
    ("schema", "value", "is_admitted"),
    [
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, 1, False),
        ({"oneOf": [{"type": "string"}, {"const": "x"}]}, "x", True),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"xy": 1}, True),
        ({"minimum": "low", "maxLength": "x", "required": 5, "unheard": 1}, 1, True),
        ({"$ref": "https://elsewhere.test"}, 1, True),
        ({"items": 5, "properties": 5, "allOf": 5}, [1], True),
        ({"items": False}, [1], False),
        ({"additionalProperties": False}, {"a": 1}, False),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "null"}}, ["a", None], True),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "null"}}, [None], False),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "null"}}, ["a", "b"], False),
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, 1.5, False),
    ],
)
def test_unsupported_keywords_count_as_satisfied(
    schema: Any, value: Any, is_admitted: bool
) -> None:
    assert admits(schema, value, schema) == is_admitted


def test_validation_of_self_referring_and_growing_schemas_ends() -> None:
    assert admits({"$ref": "#"}, 1, {"$ref": "#"})
    doubling = {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}
    assert admits(doubling, 1, doubling)


def test_values_are_validated_down_to_the_maximum_depth() -> None:
    schema: Any = {"type": "integer"}
    value: Any = "x"
    for _ in range(MAX_DEPTH):
        schema, value = {"items": schema}, [value]
    assert not admits(schema, value, schema)
    assert admits({"items": schema}, [value], schema)


def test_values_are_validated_up_to_the_maximum_number() -> None:
    schema = {"items": {"type": "integer"}}
    most = [1] * (MAX_STEPS - 2)
    assert not admits(schema, [*most, "x"], schema)
    assert admits(schema, [*most, 1, "x"], schema)


def test_value_deeper_than_the_limit_counts_as_valid() -> None:
    schema = {"type": "array", "items": {"$ref": "#"}}
    deep: Any = 1
    for _ in range(MAX_DEPTH * 2):
        deep = [deep]
    assert admits(schema, deep, schema)
    assert not admits(schema, [[1]], schema)


@pytest.mark.parametrize(
    ("a", "b"), [(1, True), ([1], [True]), ([1], [1, 2]), ({"a": 1}, {"b": 1}), ({}, [])]
)
def test_values_of_different_kinds_or_sizes_are_not_the_same(a: Any, b: Any) -> None:
    assert not same(a, b)
    assert not same(b, a)
    assert same(a, a)
