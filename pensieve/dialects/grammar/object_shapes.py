"""Resolve a JSON Schema's objects, with references and combinations, to lists of properties.

The result is wider than the schema if lists of properties cannot express it, never narrower.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import cast

from pensieve.dialects.dialect import Schema
from pensieve.dialects.grammar.schema_types import as_schema, schemas_in, values_in

KINDS = frozenset({"object", "array", "string", "number", "boolean", "null"})
MAX_STEPS = 32
MAX_SHAPES = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """One list of properties."""

    properties: Mapping[str, Schema] = field(default_factory=dict[str, Schema])
    required: tuple[str, ...] = ()
    additional: Schema | bool | None = None  # further ones; False: none; None: undefined
    has_list: bool = False

    @property
    def extra(self) -> Schema | None:
        """The schema of further properties; None if there are none.

        An object that lists its properties has no others.
        """
        if isinstance(self.additional, Mapping):
            return self.additional
        is_open = not self.has_list if self.additional is None else self.additional
        return {} if is_open else None

    def whole(self) -> "Shape":
        """Add every required property to the properties."""
        extra = self.extra
        missing = {key: extra or {} for key in self.required if key not in self.properties}
        additional = False if extra is None else extra
        return Shape({**self.properties, **missing}, self.required, additional, has_list=True)

    def schema(self) -> Schema:
        return {"type": "object", **self.keywords()}

    def keywords(self) -> Schema:
        """Return the JSON Schema keywords of this shape."""
        if not self.properties and self.extra == {}:
            return {}
        fields: dict[str, object] = {"properties": dict(self.properties)}
        if self.required:
            fields["required"] = list(self.required)
        extra = self.extra
        return {**fields, "additionalProperties": False if extra is None else extra}


def target(reference: object, whole: Schema) -> Schema | None:
    """Return the schema that a reference into `whole` refers to; None for other references."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: object = whole
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = as_schema(found).get(name)
    return cast("Schema", found) if isinstance(found, Mapping) else None


def parts_of(schema: Schema, whole: Schema, steps: int) -> tuple[Schema, list[list[Schema]]]:
    """Return a schema's own keywords, and lists of schemas of each of which one also applies."""
    choices = [[one] for one in schemas_in(schema.get("allOf"))]
    choices += [found for key in ("anyOf", "oneOf") if (found := schemas_in(schema.get(key)))]
    if "$ref" in schema and steps:
        choices.append([target(schema["$ref"], whole) or {}])
    return schema, choices


def kinds_of(schema: Schema, whole: Schema, steps: int = MAX_STEPS) -> frozenset[str]:
    """Return the kinds of JSON values that a schema may admit. Integers are numbers."""
    own, choices = parts_of(schema, whole, steps)
    found = _own_kinds(own)
    if steps:
        for choice in choices:
            found &= frozenset().union(*(kinds_of(one, whole, steps - 1) for one in choice))
    return found


def _own_kinds(schema: Schema) -> frozenset[str]:
    found = KINDS
    if kinds := values_in(schema.get("type")):
        named = {"number" if kind == "integer" else str(kind) for kind in kinds}
        if named <= KINDS:
            found &= named
    if "const" in schema:
        found &= {kind_of_value(schema["const"])}
    elif values := values_in(schema.get("enum")):
        found &= frozenset(map(kind_of_value, values))
    return found


def kind_of_value(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def shapes_of(schema: Schema, whole: Schema) -> list[Shape]:
    """Return the alternative property lists of an object of this schema."""
    return [shape.whole() for shape in _shapes(schema, whole, MAX_STEPS)] or [Shape()]


def _shapes(schema: Schema, whole: Schema, steps: int) -> list[Shape]:
    own, choices = parts_of(schema, whole, steps)
    if "object" not in _own_kinds(own):
        return []
    if not steps:
        return [Shape()]
    found = [own_shape(own)]
    for choice in choices:
        others = [shape for one in choice for shape in _shapes(one, whole, steps - 1)]
        found = _narrow([_both(a, b) for a, b in product(found, others)])
    return found


def _narrow(shapes: Sequence[Shape]) -> list[Shape]:
    """Drop duplicates; merge the shapes to a wider one if there are too many."""
    distinct: list[Shape] = []
    for shape in shapes:
        if shape not in distinct:
            distinct.append(shape)
    return distinct if len(distinct) <= MAX_SHAPES else [reduce(_either, distinct)]


def own_shape(schema: Schema) -> Shape:
    """Return what a schema itself defines for objects, without what it combines."""
    lists = schema.get("properties")
    properties = {key: as_schema(one) for key, one in as_schema(lists).items() if one is not False}
    additional = schema.get("additionalProperties")
    if not isinstance(additional, Mapping | bool):
        additional = None
    patterns = list(as_schema(schema.get("patternProperties")).values())
    if patterns and not (additional is True or (additional is None and not lists)):
        further = [as_schema(cast("object", additional))] if isinstance(additional, Mapping) else []
        additional = either([*map(as_schema, patterns), *further])
    names = tuple(key for key in values_in(schema.get("required")) if isinstance(key, str))
    return Shape(
        properties,
        tuple(dict.fromkeys(names)),
        cast("Schema | bool | None", additional),
        has_list=isinstance(lists, Mapping),
    )


def _both(a: Shape, b: Shape) -> Shape:
    """Return a shape for objects that obey both."""
    properties: dict[str, Schema] = {}
    for key in dict.fromkeys([*a.properties, *b.properties]):
        found = [part for one in (a, b) if (part := _part(one, key)) is not None]
        if len(found) == 2:
            properties[key] = both(found)
    required = tuple(dict.fromkeys([*a.required, *b.required]))
    return Shape(properties, required, _both_extras(a, b), has_list=a.has_list or b.has_list)


def _part(shape: Shape, key: str) -> Schema | None:
    if key in shape.properties:
        return shape.properties[key]
    if isinstance(shape.additional, Mapping):
        return shape.additional
    return None if shape.additional is False else {}


def _both_extras(a: Shape, b: Shape) -> Schema | bool | None:
    extras = [one.additional for one in (a, b)]
    if False in extras:
        return False
    found = [one for one in extras if isinstance(one, Mapping)]
    return both(found) if found else True if True in extras else None


def _either(a: Shape, b: Shape) -> Shape:
    """Return a shape for objects that obey one of the two, and some more."""
    properties = {
        key: either([one.properties[key] for one in (a, b) if key in one.properties])
        for key in dict.fromkeys([*a.properties, *b.properties])
    }
    required = tuple(key for key in a.required if key in b.required)
    extras = [extra for one in (a, b) if (extra := one.extra) is not None]
    return Shape(properties, required, either(extras) if extras else False, has_list=True)


def both(schemas: Iterable[Schema]) -> Schema:
    """Return a schema for values that obey all of `schemas`."""
    found = _distinct(one for one in schemas if one)
    return found[0] if len(found) == 1 else {"allOf": found} if found else {}


def either(schemas: Sequence[Schema]) -> Schema:
    """Return a schema for values that obey any of `schemas`."""
    found = _distinct(schemas)
    return {} if {} in found else found[0] if len(found) == 1 else {"anyOf": found}


def _distinct(schemas: Iterable[Schema]) -> list[Schema]:
    found: list[Schema] = []
    for one in schemas:
        if one not in found:
            found.append(one)
    return found


def alternatives(schema: Schema, whole: Schema, steps: int = MAX_STEPS) -> Iterator[Schema]:
    """Yield the alternatives that a schema lists; the schema itself if it does more than that."""
    keys = schema.keys() - {"$defs", "definitions"}
    if not steps:
        yield schema
    elif keys == {"$ref"}:
        yield from alternatives(target(schema["$ref"], whole) or {}, whole, steps - 1)
    elif keys in ({"anyOf"}, {"oneOf"}):
        for one in schemas_in(schema.get("anyOf", schema.get("oneOf"))):
            yield from alternatives(one, whole, steps - 1)
    else:
        yield schema


def listed_values(part: Schema) -> list[object] | None:
    """Return the values that a schema lists; None if it lists none."""
    if "const" in part:
        return [part["const"]]
    values = part.get("enum")
    if not isinstance(values, list | tuple):
        return None
    kinds = kinds_of(part, {})
    return [value for value in cast("list[object]", values) if kind_of_value(value) in kinds]
