"""Parts of JSON Schemas as clients send them, which may be of any type."""

from collections.abc import Mapping
from typing import cast

from pensieve.dialects.dialect import Schema


def properties(schema: Schema) -> Mapping[str, Schema]:
    """A tool's parameters by name."""
    return {name: as_schema(inner) for name, inner in as_schema(schema.get("properties")).items()}


def as_schema(value: object) -> Schema:
    """`value` where it is an object, else the schema that takes anything."""
    return cast("Schema", value) if isinstance(value, Mapping) else {}


def required(schema: Schema) -> frozenset[str]:
    """The names of the parameters that must be there."""
    return frozenset(name for name in values_in(schema.get("required")) if isinstance(name, str))


def with_definitions(part: Schema, whole: Schema) -> Schema:
    """`part` of a schema as one of its own: what it refers to comes along."""
    shared = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
    return {**part, **shared}


def schemas_in(value: object) -> list[Schema]:
    """The schemas of a list, where it is one."""
    return [as_schema(one) for one in values_in(value) if _is_schema(one)]


def _is_schema(value: object) -> bool:
    return value is True or isinstance(value, Mapping)


def values_in(value: object) -> list[object]:
    """The values of a list; of what is none, the value itself."""
    if isinstance(value, list | tuple):
        return list(cast("list[object]", value))
    return [] if value is None else [value]
