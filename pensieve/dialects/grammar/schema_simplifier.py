"""Reduce tools' JSON Schemas to what compiles to a grammar: bounded, with supported keywords only.

Clients send anything: `$schema`, remote references, regular expressions with look-ahead,
`"properties": {"a": "b"}`. What no grammar can express is dropped, so the grammar is wider than the
schema, never narrower. Uses its own stack: a hostile schema cannot exhaust Python's.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from pensieve.dialects.dialect import Schema
from pensieve.dialects.grammar.closed_schema import closed_object
from pensieve.dialects.grammar.object_shapes import kinds_of, target
from pensieve.dialects.grammar.schema_types import as_schema, schemas_in

MAX_DEPTH = 32
MAX_NODES = 5_000
MAX_VISITS = 20_000
MAX_BYTES = 256 * 1024
MAX_PATTERN_CHARS = 512
# Larger bounds of lengths and numbers of items are ignored.
MAX_COUNT = 4096
MAX_REPEATS = 1024

FREE_OBJECT: Schema = {"type": "object"}

_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
_FORMATS = {
    *("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
}
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_UNSUPPORTED_SYNTAX = re.compile(r"\(\?(?!:)|\\[1-9bBkKpPX]")
_REPEATS = re.compile(r"\{(\d+)(?:,(\d*))?\}")


class SchemaTooComplexError(ValueError):
    """The schema is too deep, too large or too long for a grammar."""


@dataclass(frozen=True, slots=True)
class Compilable:
    """A schema that compiles to a grammar."""

    schema: Schema
    # Keywords, or types, that it does not enforce: one place of each, such as `properties.a`.
    dropped: Mapping[str, str]


def compilable_object(schema: Schema) -> Compilable:
    """Return `schema` for a tool's arguments: always an object.

    Raises `SchemaTooComplexError`.
    """
    fit = compilable(schema)
    _check_combinations(fit.schema)
    if "object" not in kinds_of(fit.schema, fit.schema):
        return Compilable(FREE_OBJECT, {**fit.dropped, "type": ""})
    return Compilable(closed_object(fit.schema), fit.dropped)


def arguments_schema(schema: Schema) -> Schema:
    """Return the schema that a tool's arguments are constrained to; any object if too complex."""
    try:
        return compilable_object(schema).schema
    except SchemaTooComplexError:
        return FREE_OBJECT


def compilable(schema: Schema) -> Compilable:
    """Return `schema` without unsupported keywords. Raises `SchemaTooComplexError`."""
    _check_size(schema)
    simplifier = _Simplifier(schema)
    return Compilable(simplifier.whole(), simplifier.dropped)


def _check_size(schema: Schema) -> None:
    nodes = 0
    pending: list[tuple[object, int]] = [(schema, 1)]
    while pending:
        value, depth = pending.pop()
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise SchemaTooComplexError
        pending += ((inner, depth + 1) for inner in _inner(value))
    if len(json.dumps(schema)) > MAX_BYTES:
        raise SchemaTooComplexError


def _check_combinations(schema: Schema) -> None:
    """Raise `SchemaTooComplexError` if following all references and choices takes too long."""
    visits = 0
    nodes: list[object] = [schema]
    while nodes:
        node = nodes.pop()
        nodes += _inner(node)
        pending = [as_schema(node)]
        while pending:
            visits += 1
            if visits > MAX_VISITS:
                raise SchemaTooComplexError
            one = pending.pop()
            for key in ("allOf", "anyOf", "oneOf"):
                pending += schemas_in(one.get(key))
            if (found := target(one.get("$ref"), schema)) is not None:
                pending.append(found)


def _inner(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from cast("Mapping[str, object]", value).values()
    elif isinstance(value, list | tuple):
        yield from cast("list[object]", value)


@dataclass(slots=True)
class _Simplifier:
    """Owns the pending nodes of one schema, each with its place and the setter of its result."""

    root: Schema
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    _pending: list[tuple[object, str, Callable[[Schema | bool], None]]] = field(
        default_factory=list
    )
    _place: str = ""  # of the node in work

    def whole(self) -> Schema:
        done: list[Schema | bool] = []
        self._pending.append((self.root, "", done.append))
        while self._pending:
            node, self._place, put = self._pending.pop()
            put(self._fit(node))
        first = done[0]
        return first if isinstance(first, Mapping) else {}

    def _fit(self, node: object) -> Schema | bool:
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            self._drop("schema")
            return {}
        fields = cast("Schema", node)
        fitted: dict[str, object] = {}
        if "$ref" in fields and (found := self._target(fields["$ref"])) is not None:
            fitted["$ref"] = found
        elif "$ref" in fields:
            self._drop("$ref")
        for key, value in fields.items():
            if key == "$ref" or self._keyword(key, value, fitted):
                continue
            if key not in _ANNOTATIONS:
                self._drop(key)
        return fitted

    def _drop(self, keyword: str) -> None:
        self.dropped.setdefault(keyword, self._place)

    def _keyword(self, key: str, value: object, fitted: dict[str, object]) -> bool:
        """Add a supported keyword to `fitted`. Return whether it is supported."""
        if key in _MAPS and isinstance(value, Mapping):
            self._fit_map(fitted.setdefault(key, {}), cast("Schema", value), key)
        elif key in _LISTS and isinstance(value, list | tuple) and value:
            self._fit_list(fitted.setdefault(key, []), cast("list[object]", value), key)
        elif key in _SINGLE and isinstance(value, Mapping | bool):
            fitted[key] = {}
            self._push(cast("object", value), key, _setter(fitted, key))
        elif key == "const":
            fitted[key] = value
        elif (plain := _plain(key, cast("object", value))) is not None:
            fitted[key] = plain
        else:
            return False
        return True

    def _fit_map(self, into: object, schemas: Schema, keyword: str) -> None:
        fitted = cast("dict[str, object]", into)
        for name, inner in schemas.items():
            fitted[name] = {}
            self._push(inner, f"{keyword}.{name}", _setter(fitted, name))

    def _fit_list(self, into: object, schemas: list[object], keyword: str) -> None:
        fitted = cast("list[object]", into)
        for at, inner in enumerate(schemas):
            fitted.append({})
            self._push(inner, f"{keyword}.{at}", _setter(fitted, at))

    def _push(self, node: object, within: str, put: Callable[[Schema | bool], None]) -> None:
        place = f"{self._place}.{within}" if self._place else within
        self._pending.append((node, place, put))

    def _target(self, reference: object) -> str | None:
        """Return a reference into this schema that resolves; None for any other."""
        seen: set[object] = set()
        following = reference
        while isinstance(following, str) and following not in seen:
            seen.add(following)
            found = target(following, self.root)
            if found is None:
                return None
            if "$ref" not in found:
                return cast("str", reference)
            following = found["$ref"]
        return None


# Keywords that do not affect validity.
_ANNOTATIONS = {
    *("$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"),
    *("readOnly", "writeOnly", "$anchor", "contentMediaType", "contentEncoding", "example"),
}


def _setter(container: "dict[str, object] | list[object]", key: str | int) -> Callable[..., None]:
    def put(schema: Schema | bool) -> None:  # noqa: FBT001 -- true and false are schemas
        cast("dict[str | int, object]", container)[key] = schema

    return put


def _plain(key: str, value: object) -> object:
    """Return the keyword's value if a grammar can express it, else None."""
    match key:
        case "type":
            return _kinds(value)
        case "enum":
            return cast("object", value) if isinstance(value, list | tuple) and value else None
        case "required":
            return _names(value)
        case "pattern":
            return value if isinstance(value, str) and _is_plain_pattern(value) else None
        case "format":
            return value if _is_one_of(_FORMATS, value) else None
        case _:
            return _number(key, value)


def _kinds(value: object) -> object:
    if isinstance(value, list | tuple):
        return [kind for kind in cast("list[object]", value) if _is_one_of(_TYPES, kind)] or None
    return value if _is_one_of(_TYPES, value) else None


def _is_one_of(texts: set[str], value: object) -> bool:
    """Return whether `value` is one of `texts`. `in` raises for lists, which clients may send."""
    return isinstance(value, str) and value in texts


def _names(value: object) -> object:
    if not isinstance(value, list | tuple):
        return None
    return [name for name in cast("list[object]", value) if isinstance(name, str)]


def _number(key: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if key in _NUMBERS:
        return value
    if key in _COUNTS and 0 <= value <= MAX_COUNT:
        return int(value)
    return None


def _is_plain_pattern(pattern: str) -> bool:
    """Return whether a pattern is regular, and small enough for an automaton."""
    if len(pattern) > MAX_PATTERN_CHARS or _UNSUPPORTED_SYNTAX.search(pattern):
        return False
    repeats = 1
    for minimum, maximum in _REPEATS.findall(pattern):
        repeats *= max(1, int((maximum or minimum)[:6]))
    return repeats <= MAX_REPEATS
