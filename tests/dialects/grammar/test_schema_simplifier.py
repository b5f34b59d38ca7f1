"""Simplified schemas are bounded, have supported keywords only, and are never narrower."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pensieve.dialects.grammar.schema_simplifier import (
    FREE_OBJECT,
    MAX_BYTES,
    MAX_COUNT,
    MAX_DEPTH,
    MAX_NODES,
    MAX_PATTERN_CHARS,
    MAX_REPEATS,
    MAX_VISITS,
    SchemaTooComplexError,
    arguments_schema,
    compilable,
    compilable_object,
)


def fit(schema: dict[str, Any]) -> tuple[Any, set[str]]:
    found = compilable(schema)
    return found.schema, set(found.dropped)


def nested(depth: int, key: str = "items") -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {key: schema}
    return schema


def test_supported_keywords_stay_unchanged() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "minLength": 1, "maxLength": 9, "pattern": "^a+$"},
            "b": {"type": "integer", "minimum": 1, "maximum": 5, "multipleOf": 2},
            "c": {"type": "array", "items": {"$ref": "#/$defs/d"}, "minItems": 1, "maxItems": 3},
            "e": {"anyOf": [{"const": None}, {"enum": ["x", 1]}], "format": "date"},
            "f": True,
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"d": {"type": "string", "format": "uuid"}},
    }
    assert fit(schema) == (
        {
            **schema,
            "properties": {
                **schema["properties"],
                "e": {"anyOf": [{"const": None}, {"enum": ["x", 1]}], "format": "date"},
            },
        },
        set(),
    )


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("type", ["object", "array", "string", "number", "integer", "boolean", "null"]),
        ("format", ["date-time", "time", "date", "duration", "email", "hostname", "uri"]),
        ("format", ["ipv4", "ipv6", "uuid"]),
        *((key, [1]) for key in ("minLength", "maxLength", "minItems", "maxItems")),
        *((key, [1]) for key in ("minProperties", "maxProperties", "multipleOf")),
        *((key, [-1.5]) for key in ("minimum", "maximum")),
        *((key, [-1.5]) for key in ("exclusiveMinimum", "exclusiveMaximum")),
        *((key, [{"a": {"const": 1}}]) for key in ("properties", "patternProperties")),
        *((key, [{"a": {"const": 1}}]) for key in ("$defs", "definitions")),
        *((key, [[{"const": 1}, {}]]) for key in ("anyOf", "oneOf", "allOf", "prefixItems")),
        *((key, [{"const": 1}, False]) for key in ("items", "additionalProperties")),
    ],
)
def test_each_supported_keyword_stays(keyword: str, values: list[Any]) -> None:
    for value in values:
        assert fit({keyword: value}) == ({keyword: value}, set())


def test_annotations_are_dropped_without_report() -> None:
    names = ["$schema", "$id", "$comment", "$anchor", "title", "description", "default"]
    names += ["examples", "example", "deprecated", "readOnly", "writeOnly"]
    names += ["contentMediaType", "contentEncoding"]
    assert fit({"type": "object", **dict.fromkeys(names, 1)}) == ({"type": "object"}, set())


@pytest.mark.parametrize(
    "schema",
    [
        {"minItems": 0, "maxLength": MAX_COUNT},
        {"pattern": "x" * MAX_PATTERN_CHARS},
        {"pattern": f"x{{{MAX_REPEATS}}}"},
        {"pattern": f"(x{{0}}){{{MAX_REPEATS}}}"},
    ],
    ids=lambda one: str(one)[:30],
)
def test_keywords_at_their_limits_stay(schema: dict[str, Any]) -> None:
    assert fit(schema) == (schema, set())


@pytest.mark.parametrize(
    ("schema", "dropped"),
    [
        ({"not": {}}, "not"),
        ({"uniqueItems": True}, "uniqueItems"),
        ({"if": {}, "then": {}}, "then"),
        ({"$ref": "https://elsewhere.test/schema"}, "$ref"),
        ({"$ref": "#/nowhere"}, "$ref"),
        ({"$ref": "#"}, "$ref"),
        ({"$ref": 7}, "$ref"),
        ({"pattern": "(?=x)y"}, "pattern"),
        ({"pattern": "(?!x)y"}, "pattern"),
        ({"pattern": "(?<=x)y"}, "pattern"),
        ({"pattern": "(x)\\1"}, "pattern"),
        ({"pattern": "\\bx"}, "pattern"),
        ({"pattern": "x" * (MAX_PATTERN_CHARS + 1)}, "pattern"),
        ({"pattern": f"x{{{MAX_REPEATS + 1}}}"}, "pattern"),
        ({"pattern": "(x{1,1000}){1,1000}"}, "pattern"),
        ({"pattern": "x{99999999999}"}, "pattern"),
        ({"format": "weird"}, "format"),
        ({"type": "animal"}, "type"),
        ({"type": ["animal"]}, "type"),
        ({"maxItems": MAX_COUNT + 1}, "maxItems"),
        ({"minItems": -1}, "minItems"),
        ({"minLength": 10**9}, "minLength"),
        ({"minimum": "low"}, "minimum"),
        ({"minimum": True}, "minimum"),
        ({"enum": []}, "enum"),
        ({"required": "a"}, "required"),
        ({"properties": "none"}, "properties"),
        ({"anyOf": []}, "anyOf"),
        ({"properties": {"a": "b"}}, "schema"),
        ({"items": 7}, "items"),
        ({"unheard": 1}, "unheard"),
    ],
    ids=str,
)
def test_unsupported_keywords_are_dropped_and_reported(
    schema: dict[str, Any], dropped: str
) -> None:
    found, reported = fit(schema)
    assert dropped in reported
    assert json.dumps(found) in ("{}", '{"properties": {"a": {}}}')


def test_circular_references_are_dropped() -> None:
    schema = {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    }
    found, dropped = fit(schema)
    assert "$ref" in dropped
    assert "$ref" not in json.dumps(found)


def test_reference_to_a_recursive_schema_stays() -> None:
    schema = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/node"}},
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    }
    assert fit(schema) == (schema, set())


@pytest.mark.parametrize("key", ["items", "not", "default", "anything"])
def test_schema_deeper_than_the_limit_is_too_complex(key: str) -> None:
    compilable(nested(MAX_DEPTH, key))
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(SchemaTooComplexError):
            compilable(nested(depth, key))


def test_schema_of_more_nodes_than_the_limit_is_too_complex() -> None:
    compilable({"enum": ["x"] * (MAX_NODES - 2)})
    with pytest.raises(SchemaTooComplexError):
        compilable({"enum": ["x"] * (MAX_NODES - 1)})


def test_schema_longer_than_the_limit_is_too_complex() -> None:
    longest = MAX_BYTES - len(json.dumps({"description": ""}))
    compilable({"description": "x" * longest})
    with pytest.raises(SchemaTooComplexError):
        compilable({"description": "x" * (longest + 1)})


@pytest.mark.parametrize("key", ["allOf", "anyOf", "oneOf"])
def test_combinations_that_double_each_other_are_too_complex(key: str) -> None:
    parts: dict[str, Any] = {
        f"d{at}": {key: [{"$ref": f"#/$defs/d{at + 1}"}, {"$ref": f"#/$defs/d{at + 1}"}]}
        for at in range(40)
    }
    schema = {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**parts, "d40": {}}}
    with pytest.raises(SchemaTooComplexError):
        compilable_object(schema)
    assert arguments_schema(schema) == FREE_OBJECT


def test_choices_are_followed_up_to_the_maximum_number_of_visits() -> None:
    # Each reference counts with what it refers to and the 56 choices there: with itself in its
    # place and its text these are 59, and all other parts are 118.
    references = {f"p{at}": {"$ref": "#/$defs/F"} for at in range((MAX_VISITS + 1) // 59 - 2)}
    schema = {"properties": references, "$defs": {"F": {"anyOf": [{}] * 56}}}
    compilable_object(schema)
    with pytest.raises(SchemaTooComplexError):
        compilable_object({**schema, "minProperties": 0})


def test_schema_that_admits_no_object_is_reported() -> None:
    assert compilable_object({"type": "string"}).dropped.keys() == {"type"}
    assert compilable_object({"type": "string", "not": {}}).dropped.keys() == {"type", "not"}
    assert compilable_object({"type": "object"}).dropped == {}


@pytest.mark.parametrize(
    ("schema", "object_schema"),
    [
        ({}, {"type": "object"}),
        (
            {"properties": {"a": {}}},
            {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        ),
        ({"type": ["object", "null"]}, {"type": "object"}),
        ({"type": "string"}, FREE_OBJECT),
        ({"type": "array", "items": {}}, FREE_OBJECT),
    ],
)
def test_arguments_schema_is_always_an_object(
    schema: dict[str, Any], object_schema: dict[str, Any]
) -> None:
    assert compilable_object(schema).schema == object_schema


kinds = st.sampled_from(["object", "array", "string", "integer", "null"])
schemas = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": kinds,
            "minLength": st.integers(0, 3),
            "pattern": st.just("(?=a)b"),
            "const": st.integers(0, 2),
            "enum": st.just(["x", None]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "required": st.just(["a"]),
            "additionalProperties": inner | st.booleans(),
            "not": inner,
            "uniqueItems": st.booleans(),
        },
    ),
    max_leaves=8,
)
values = st.recursive(
    st.sampled_from([None, "x", "", 0, 1]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


@given(schemas, values)
@settings(max_examples=200)
def test_simplified_schema_admits_all_values_of_the_original(schema: Any, value: Any) -> None:
    assume(jsonschema.Draft202012Validator(schema).is_valid(value))
    assert jsonschema.Draft202012Validator(compilable(schema).schema).is_valid(value)
