"""What a tool's schema says of the value of one parameter, where a dialect writes texts otherwise than other values."""

from collections.abc import Mapping
from typing import cast

from pensieve.dialects.dialect import Schema

_MOST_STEPS = 16


def properties(schema: Schema) -> Mapping[str, Schema]:
    """A tool's parameters by name."""
    return {name: as_schema(inner) for name, inner in as_schema(schema.get("properties")).items()}


def as_schema(value: object) -> Schema:
    """`value` where it is an object, else the schema that takes anything."""
    return cast("Schema", value) if isinstance(value, Mapping) else {}


def required(schema: Schema) -> frozenset[str]:
    """The names of the parameters that must be there."""
    return frozenset(name for name in _list(schema.get("required")) if isinstance(name, str))


def with_definitions(part: Schema, whole: Schema) -> Schema:
    """`part` of a schema as one of its own: what it refers to comes along."""
    shared = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
    return {**part, **shared}


def is_text(part: Schema, whole: Schema) -> bool:
    """Whether a parameter's value may be a text. One that says nothing of itself may."""
    waiting = [part]
    steps = 0
    while waiting and steps < _MOST_STEPS:
        steps += 1
        schema = _resolved(waiting.pop(), whole)
        if "type" in schema:
            if "string" in _list(schema["type"]):
                return True
        elif "enum" in schema or "const" in schema:
            values = _list(schema["enum"]) if "enum" in schema else [schema["const"]]
            if any(isinstance(value, str) for value in values):
                return True
        elif not (choices := _schemas(schema.get("anyOf")) + _schemas(schema.get("oneOf"))):
            return "allOf" not in schema or _is_all_text(schema, whole)
        else:
            waiting += choices
    return False


def kind_of(part: Schema, whole: Schema) -> str | None:
    """The one JSON type that a parameter's value has, where the schema says so."""
    kinds = _list(_resolved(part, whole).get("type"))
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], str) else None


def texts_of(part: Schema) -> list[str] | None:
    """The texts that a parameter's value is one of, where the schema lists them."""
    values = [part["const"]] if "const" in part else _list(part.get("enum"))
    texts = [value for value in values if isinstance(value, str)]
    return texts if texts and len(texts) == len(values) else None


def _is_all_text(schema: Schema, whole: Schema) -> bool:
    kinds = (_resolved(one, whole).get("type", "string") for one in _schemas(schema["allOf"]))
    return all("string" in _list(kind) for kind in kinds)


def _schemas(value: object) -> list[Schema]:
    return [cast("Schema", one) for one in _list(value) if isinstance(one, Mapping)]


def _resolved(schema: Schema, whole: Schema) -> Schema:
    """Where a schema that only refers to another ends."""
    for _ in range(_MOST_STEPS):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        found: object = whole
        for name in reference.lstrip("#").split("/")[1:]:
            found = as_schema(found).get(name)
        schema = as_schema(found)
    return {}


def _list(value: object) -> list[object]:
    if isinstance(value, list | tuple):
        return list(cast("list[object]", value))
    return [] if value is None else [value]
