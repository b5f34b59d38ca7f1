"""Validate JSON values against a JSON Schema within bounded time.

Patterns and formats are ignored: a client's regular expression may take forever. Unsupported
keywords count as satisfied.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from pensieve.dialects.dialect import Schema
from pensieve.dialects.grammar.object_shapes import kind_of_value, target
from pensieve.dialects.grammar.schema_types import as_schema, schemas_in, values_in

# A tool call of 100 kB has some thousands of values; larger ones count as valid.
MAX_STEPS = 50_000
MAX_DEPTH = 100

Check = Callable[[object, object], bool]


def admits(schema: Schema, value: object, whole: Schema) -> bool:
    """Return whether `value` obeys `schema`, whose references are into `whole`."""
    return _Validator(whole).holds(schema, value, 0)


class _Validator:
    def __init__(self, whole: Schema) -> None:
        self._whole = whole
        self._steps = 0

    def holds(self, schema: object, value: object, depth: int) -> bool:
        self._steps += 1
        if schema is False:
            return False
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH or self._steps > MAX_STEPS:
            return True
        fields = cast("Schema", schema)
        own = (_CHECKS[key](value, expected) for key, expected in fields.items() if key in _CHECKS)
        return all(own) and self._parts(fields, value, depth + 1)

    def _parts(self, schema: Schema, value: object, depth: int) -> bool:
        if "$ref" in schema:
            found = target(schema["$ref"], self._whole)
            if found is not None and not self.holds(found, value, depth):
                return False
        if not all(self.holds(one, value, depth) for one in schemas_in(schema.get("allOf"))):
            return False
        for key in ("anyOf", "oneOf"):
            choices = schemas_in(schema.get(key))
            if choices and not any(self.holds(one, value, depth) for one in choices):
                return False
        return all(self.holds(part, inner, depth) for part, inner in _inner(schema, value))


def _inner(schema: Schema, value: object) -> Iterator[tuple[object, object]]:
    """Yield the values inside, each with its schema."""
    if isinstance(value, Mapping):
        listed = as_schema(schema.get("properties"))
        is_open = "patternProperties" in schema
        further = True if is_open else schema.get("additionalProperties", True)
        for key, one in cast("Mapping[str, object]", value).items():
            yield listed.get(key, further), one
    elif isinstance(value, list):
        first = values_in(schema.get("prefixItems"))
        for at, one in enumerate(cast("list[object]", value)):
            yield (first[at] if at < len(first) else schema.get("items", {})), one


def _is_of(value: object, kinds: object) -> bool:
    kind = kind_of_value(value)
    expected = values_in(kinds)
    if kind != "number" or "number" in expected:
        return kind in expected
    is_whole = isinstance(value, int) or cast("float", value).is_integer()
    return "integer" in expected and is_whole


def same(a: object, b: object) -> bool:
    """Return whether two JSON values are equal: True is not 1."""
    if kind_of_value(a) != kind_of_value(b):
        return False
    if isinstance(a, list) and isinstance(b, list):
        pairs = zip(cast("list[object]", a), cast("list[object]", b), strict=False)
        return len(cast("list[object]", a)) == len(cast("list[object]", b)) and all(
            same(*pair) for pair in pairs
        )
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        one, other = cast("Schema", a), cast("Schema", b)
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return a == b


def _sized(kind: str, is_within: Callable[[int, float], bool]) -> Check:
    def check(value: object, bound: object) -> bool:
        if kind_of_value(value) != kind or not _is_number(bound):
            return True
        return is_within(len(cast("str", value)), cast("float", bound))

    return check


def _compared(is_within: Callable[[float, float], bool]) -> Check:
    def check(value: object, bound: object) -> bool:
        if not _is_number(value) or not _is_number(bound):
            return True
        return is_within(cast("float", value), cast("float", bound))

    return check


def _is_number(value: object) -> bool:
    return kind_of_value(value) == "number"


def _has_all(value: object, names: object) -> bool:
    return not isinstance(value, Mapping) or all(name in value for name in values_in(names))


_CHECKS: Mapping[str, Check] = {
    "type": _is_of,
    "const": same,
    "enum": lambda value, choices: any(same(value, one) for one in values_in(choices)),
    "required": _has_all,
    "minLength": _sized("string", lambda size, bound: size >= bound),
    "maxLength": _sized("string", lambda size, bound: size <= bound),
    "minItems": _sized("array", lambda size, bound: size >= bound),
    "maxItems": _sized("array", lambda size, bound: size <= bound),
    "minProperties": _sized("object", lambda size, bound: size >= bound),
    "maxProperties": _sized("object", lambda size, bound: size <= bound),
    "minimum": _compared(lambda value, bound: value >= bound),
    "maximum": _compared(lambda value, bound: value <= bound),
    "exclusiveMinimum": _compared(lambda value, bound: value > bound),
    "exclusiveMaximum": _compared(lambda value, bound: value < bound),
}
