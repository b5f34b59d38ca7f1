"""Close a tool's schema for its arguments: always an object, all references into `$defs`.

Objects that list their properties get no others unless the schema allows them: otherwise models
invent properties up to the length limit. Objects without a list, and maps, stay open.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from pensieve.dialects.dialect import Schema
from pensieve.dialects.grammar.object_shapes import either, kinds_of, own_shape, shapes_of, target
from pensieve.dialects.grammar.schema_types import as_schema

# Combinations beyond these limits are not resolved: they admit anything.
MAX_NODES = 5_000
MAX_DEPTH = 48
# Depth that a nested combination counts for, since it may double the result.
COMBINED_DEPTH = 12

_COMBINING = ("allOf", "anyOf", "oneOf", "$ref")
_OF_OBJECTS = {"properties", "required", "additionalProperties", "patternProperties"}
_SCHEMAS = ("items", "additionalProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")


def closed_object(schema: Schema) -> Schema:
    """Return `schema`, which must be compilable, for a tool's arguments."""
    return _Closing(schema).whole()


@dataclass(slots=True)
class _Closing:
    """Owns the definitions, each of which is closed once."""

    root: Schema
    _nodes: int = 0
    _names: dict[str, str] = field(default_factory=dict)
    _pending: list[str] = field(default_factory=list)

    def whole(self) -> Schema:
        closed = self._object(self.root, 0)
        definitions: dict[str, object] = {}
        while self._pending:
            reference = self._pending.pop()
            found = target(reference, self.root)
            definitions[self._names[reference]] = {} if found is None else self._closed(found, 0)
        return {**closed, "$defs": definitions} if definitions else closed

    def _closed(self, node: object, depth: int) -> object:
        if not isinstance(node, Mapping):
            return node
        self._nodes += 1
        schema = cast("Schema", node)
        if set(schema) == {"$ref"}:
            return self._reference(cast("str", schema["$ref"]))
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            return {}
        if _is_combined(schema) and "object" in (kinds := kinds_of(schema, self.root)):
            others = [{"type": sorted(kinds - {"object"})}] if len(kinds) > 1 else []
            return either([self._object(schema, depth + COMBINED_DEPTH), *others])
        if schema.keys() & _OF_OBJECTS:
            schema = {**schema, **own_shape(schema).whole().keywords()}
        return self._plain(schema, depth)

    def _object(self, schema: Schema, depth: int) -> Schema:
        plain = [self._plain(shape.schema(), depth) for shape in shapes_of(schema, self.root)]
        if len(plain) == 1:
            size_limits = {
                key: schema[key] for key in ("minProperties", "maxProperties") if key in schema
            }
            return {**plain[0], **size_limits}
        return {"type": "object", **either(plain)}

    def _plain(self, schema: Schema, depth: int) -> Schema:
        """Close every schema inside."""
        found = {key: self._inner(key, value, depth + 1) for key, value in schema.items()}
        return {key: value for key, value in found.items() if key not in {"$defs", "definitions"}}

    def _inner(self, key: str, value: object, depth: int) -> object:
        if key == "$ref":
            return self._reference(cast("str", value))["$ref"]
        if key in ("properties", "patternProperties"):
            inner = as_schema(value).items()
            return {name: self._closed(one, depth) for name, one in inner}
        if key in _SCHEMAS:
            return self._closed(value, depth)
        if key in _LISTS:
            return [self._closed(one, depth) for one in cast("list[object]", value)]
        return value

    def _reference(self, reference: str) -> Schema:
        if reference not in self._names:
            self._names[reference] = f"d{len(self._names)}"
            self._pending.append(reference)
        return {"$ref": f"#/$defs/{self._names[reference]}"}


def _is_combined(schema: Schema) -> bool:
    """Return whether several parts of the schema together define an object's properties."""
    parts = sum(key in schema for key in _COMBINING) + bool(schema.keys() & _OF_OBJECTS)
    return parts > 1 or "allOf" in schema
