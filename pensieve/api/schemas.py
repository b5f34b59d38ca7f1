"""JSON Schemas of API values, generated from the validating classes for `/openapi.json`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema

from pensieve.api.base import ApiModel
from pensieve.api.pagination import Query

Schema = Mapping[str, Any]
_REF = "#/components/schemas/{model}"


class _Generator(GenerateJsonSchema):
    """Marks the fields of responses as required, as defaults are written too."""

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,  # noqa: FBT001 -- pydantic's own
    ) -> bool:
        if self.mode == "serialization":
            return "serialization_exclude_if" not in field
        return super().field_is_required(field, total)


@dataclass(frozen=True, slots=True)
class Schemas:
    # References to components, for values read from clients and values written to them.
    read: Mapping[type[ApiModel], Schema]
    written: Mapping[type[ApiModel], Schema]
    components: Mapping[str, Schema]  # by name


def schemas(read: Iterable[type[ApiModel]], written: Iterable[type[ApiModel]]) -> Schemas:
    modes: dict[tuple[type[ApiModel], JsonSchemaMode], None] = {}
    modes |= dict.fromkeys((kind, "validation") for kind in read)
    modes |= dict.fromkeys((kind, "serialization") for kind in written)
    references, definitions = models_json_schema(
        list(modes), ref_template=_REF, schema_generator=_Generator
    )

    def of(mode: JsonSchemaMode) -> dict[type[ApiModel], Schema]:
        return {kind: references[kind, mode] for kind, other in modes if other == mode}

    return Schemas(
        read=of("validation"),
        written=of("serialization"),
        components=definitions.get("$defs", {}),
    )


def query_parameters(query: type[Query]) -> list[Schema]:
    """Return a query's fields as OpenAPI parameters."""
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in text_fields(query).items()
    ]


def text_fields(kind: type[ApiModel]) -> Mapping[str, Schema]:
    """Return the schemas of fields that arrive as text, in a query or a form."""
    fields = kind.model_json_schema().get("properties", {})
    return {name: _not_null(schema) for name, schema in fields.items()}


def _not_null(schema: Schema) -> Schema:
    # A text cannot be null: the field is present or absent.
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default", "title"}}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**schema}
