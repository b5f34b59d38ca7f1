"""Adapt a tool's schema for the model: references resolved, parameters renamed.

Parameters get the names that the model writes (parameter_names.py). Some chat templates write a
schema themselves, and follow neither `$ref` nor `anyOf`. So a schema that may also be null is
presented as itself with `nullable`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pensieve.dialects.dialect import ParameterForm, Schema
from pensieve.dialects.grammar.object_shapes import target
from pensieve.dialects.grammar.schema_types import as_schema, values_in
from pensieve.dialects.parameter_names import written_name

# References are resolved up to this many schemas: each may refer to several others.
MAX_NODES = 2_000

_NULL = {"type": "null"}
_MAPS = {"patternProperties", "dependentSchemas"}
_SINGLE = {"items", "additionalProperties", "contains", "not", "if", "then", "else"}
_CHOICES = {"anyOf", "oneOf", "allOf"}
_LISTS = {*_CHOICES, "prefixItems"}
_DEFINITIONS = {"$defs", "definitions"}


def presented_schema(schema: Schema, form: ParameterForm | None) -> Schema:
    """Return `schema` for the model. form: of the arguments, if they are not JSON."""
    presenter = _Presenter(schema, form)
    presented = presenter.presented(schema, (), is_named=form is not None)
    return {**presented, **presenter.definitions()} if presenter.has_references else presented


def text_escaping_note(form: ParameterForm | None) -> str:
    """Return the instruction for texts that contain the mark which ends a text; often empty."""
    if form is None or not form.text_end:
        return ""
    escaped = "" if form.quote else ", with \\u003c for each <"
    return (
        f"In a tool call, a text that contains {form.text_end}"
        f" is written as a JSON string{escaped}."
    )


@dataclass(slots=True)
class _Presenter:
    root: Schema
    form: ParameterForm | None
    has_references: bool = False
    _nodes: int = 0

    def definitions(self) -> Schema:
        """Return the definitions, to which unresolved references refer."""
        return {key: self.root[key] for key in _DEFINITIONS if key in self.root}

    def presented(self, schema: Schema, within: tuple[object, ...], *, is_named: bool) -> Schema:
        """Resolve references and rename properties.

        within: the enclosing references. is_named: properties get the form's escaped names.
        """
        self._nodes += 1
        reference = schema.get("$ref")
        if reference is not None:
            found = target(reference, self.root)
            if found is not None and reference not in within and self._nodes <= MAX_NODES:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                return self.presented({**found, **rest}, (*within, reference), is_named=is_named)
            self.has_references = True
        parts = {
            key: self._part(key, value, within, is_named=is_named)
            for key, value in schema.items()
            if key not in _DEFINITIONS
        }
        return _optional(parts)

    def _part(
        self, key: str, value: object, within: tuple[object, ...], *, is_named: bool
    ) -> object:
        inner = is_named and self.form is not None and self.form.is_nested
        if key == "properties" and isinstance(value, Mapping):
            properties = cast("Schema", value).items()
            return {
                self._name(name, is_named=is_named): self._inner(one, within, is_named=inner)
                for name, one in properties
            }
        if key == "required" and isinstance(value, list):
            names = cast("list[object]", value)
            return [
                self._name(one, is_named=is_named) if isinstance(one, str) else one for one in names
            ]
        if key in _MAPS and isinstance(value, Mapping):
            parts = cast("Schema", value).items()
            return {name: self._inner(one, within, is_named=inner) for name, one in parts}
        if key in _LISTS and isinstance(value, list):
            is_same = is_named if key in _CHOICES else inner
            schemas = cast("list[object]", value)
            return [self._inner(one, within, is_named=is_same) for one in schemas]
        return self._inner(value, within, is_named=inner) if key in _SINGLE else value

    def _inner(self, value: object, within: tuple[object, ...], *, is_named: bool) -> object:
        if not isinstance(value, Mapping):
            return value
        return self.presented(cast("Schema", value), within, is_named=is_named)

    def _name(self, name: str, *, is_named: bool) -> str:
        return written_name(self.form, name) if is_named and self.form is not None else name


def _optional(schema: Schema) -> Schema:
    """Return a choice of a schema and null as the schema itself, with `nullable`."""
    for key in ("anyOf", "oneOf"):
        choices = values_in(schema.get(key))
        others = [one for one in choices if one != _NULL]
        if len(others) == 1 and len(choices) > 1:
            rest = {name: value for name, value in schema.items() if name != key}
            return {**as_schema(others[0]), **rest, "nullable": True}
    return schema
