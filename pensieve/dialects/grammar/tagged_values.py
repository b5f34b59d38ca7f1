"""Write and read parameter values between tags, where texts are not quoted.

Invariant: every JSON value that the schema admits is written as a text that is read as the same
value. A text that would be read as another value, or that contains the closing mark, is written as
quoted JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isinf

from pensieve.dialects.dialect import ParameterForm, Schema
from pensieve.dialects.grammar.object_shapes import (
    alternatives,
    either,
    kinds_of,
    listed_values,
    shapes_of,
)
from pensieve.dialects.grammar.schema_validation import admits

_NO_VALUE = object()


@dataclass(frozen=True)
class TaggedValue:
    """The value of one parameter, of the schema `part`, whose references are into `whole`."""

    part: Schema
    whole: Schema
    end: str = ""  # the mark that ends the value

    @cached_property
    def kinds(self) -> frozenset[str]:
        return kinds_of(self.part, self.whole)

    @property
    def is_text(self) -> bool:
        """Whether only texts are possible: they are written without quotes."""
        return self.kinds == frozenset({"string"})

    @property
    def is_value(self) -> bool:
        """Whether texts are not possible: all values are JSON."""
        return "string" not in self.kinds

    @cached_property
    def has_free_text(self) -> bool:
        """Whether texts are possible that the schema does not list."""
        choices = alternatives(self.part, self.whole)
        free = (choice for choice in choices if listed_values(choice) is None)
        return any("string" in kinds_of(choice, self.whole) for choice in free)

    @property
    def may_be_json(self) -> frozenset[str]:
        """The characters that begin JSON here and no text."""
        return frozenset() if self.has_free_text else frozenset("[{")

    def written(self, value: object) -> str:
        if isinstance(value, str) and not self._is_quoted(value):
            return value
        return _json_without(
            self.end if isinstance(value, str) or self.has_free_text else "", value
        )

    def read(self, written: str) -> object:
        """Return the value of `written`, if a text is possible."""
        value = _json(written)
        if isinstance(value, str):
            return value if self._is_quoted(value) else written
        return value if self._takes(value) else written

    def _is_quoted(self, text: str) -> bool:
        """Return whether a text without quotes would end early or be read as another value."""
        if text[:1] in self.may_be_json:
            return True
        value: object = text
        while isinstance(value, str):
            if self.end and self.end in value:
                return True
            value = _json(value)
        return self._takes(value)

    def _takes(self, value: object) -> bool:
        return value is not _NO_VALUE and admits(self.part, value, self.whole)


def _json(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return _NO_VALUE


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _finite(text: str) -> float:
    if isinf(number := float(text)):
        raise ValueError(text)
    return number


def _json_without(mark: str, value: object) -> str:
    """Return JSON for `value` without `mark`, which begins with no character of JSON."""
    written = json.dumps(value, ensure_ascii=False)
    if not mark or json.dumps(mark, ensure_ascii=False)[1:-1] not in written:
        return written
    return written.replace(mark[0], f"\\u{ord(mark[0]):04x}")


def tagged_values_of(schema: Schema, form: ParameterForm) -> "TaggedValues":
    end = form.text_end
    shapes = shapes_of(schema, schema)
    names = dict.fromkeys(name for shape in shapes for name in shape.properties)
    # What one of the shapes lists may be a further parameter in another.
    listed = {
        name: TaggedValue(
            either(_found([shape.properties.get(name, shape.extra) for shape in shapes])),
            schema,
            end,
        )
        for name in names
    }
    further = either(_found([shape.extra for shape in shapes]) or [{}])
    return TaggedValues(listed, TaggedValue(further, schema, end))


def _found(schemas: "list[Schema | None]") -> list[Schema]:
    return [schema for schema in schemas if schema is not None]


@dataclass(frozen=True, slots=True)
class TaggedValues:
    """The values of a tool's parameters."""

    listed: Mapping[str, TaggedValue]  # by the parameter's name
    further: TaggedValue  # of any other parameter

    def of(self, name: str) -> TaggedValue:
        return self.listed.get(name, self.further)
