"""Read parts of JSON Schemas as clients send them: any part may be of any type."""

from collections.abc import Mapping
from typing import cast

from pensieve.dialects.dialect import Schema


def properties(schema: Schema) -> Mapping[str, Schema]:
    """Return a tool's parameters by name."""
    return {name: as_schema(inner) for name, inner in as_schema(schema.get("properties")).items()}


def as_schema(value: object) -> Schema:
    """Return `value` if it is an object, else the schema that admits anything."""
    return cast("Schema", value) if isinstance(value, Mapping) else {}


def required(schema: Schema) -> frozenset[str]:
    """Return the names of required parameters."""
    return frozenset(name for name in values_in(schema.get("required")) if isinstance(name, str))


def with_definitions(part: Schema, whole: Schema) -> Schema:
    """Return `part` as a schema of its own, with the definitions that it may refer to."""
    shared = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
    return {**part, **shared}


def schemas_in(value: object) -> list[Schema]:
    """Return the schemas in a list; empty if `value` is none."""
    return [as_schema(one) for one in values_in(value) if _is_schema(one)]


def _is_schema(value: object) -> bool:
    return value is True or isinstance(value, Mapping)


def values_in(value: object) -> list[object]:
    """Return the values of a list; any other value as the only one."""
    if isinstance(value, list | tuple):
        return list(cast("list[object]", value))
    return [] if value is None else [value]
