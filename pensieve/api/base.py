"""Base classes of all API values: frozen, ignoring unknown fields, treating null as absent. No I/O.

The docstring of a value's class is its description in `/openapi.json`.
"""

import secrets
import string
from datetime import UTC, datetime
from typing import Annotated, Protocol, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_ID_CHARS = string.digits + string.ascii_letters


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Accepts Unix seconds and RFC 3339; written as RFC 3339.
Timestamp = Annotated[
    datetime,
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class ApiModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> str:
        """Return one line of ASCII, since old clients also split lines at U+2028."""
        return self.model_dump_json(ensure_ascii=True)


class Event(Protocol):
    """A value with a type, as streams have them."""

    @property
    def type(self) -> str: ...

    def to_json(self) -> str: ...


def data_event(value: ApiModel | Event) -> str:
    """Return a server-sent event. `to_json` returns one line, so nothing in it can end the line."""
    return f"data: {value.to_json()}\n\n"


def named_event(event: Event) -> str:
    return f"event: {event.type}\ndata: {event.to_json()}\n\n"


class RequestModel(ApiModel):
    # Some clients write null for fields that they leave out.
    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: object) -> object:
        if not isinstance(body, dict):
            return body
        fields = cast("dict[str, object]", body)
        if None not in fields.values():
            return fields
        return {
            name: value
            for name, value in fields.items()
            if value is not None
            or (name in cls.model_fields and cls.model_fields[name].is_required())
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema with optional fields nullable, as `_drop_nulls` makes them."""
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        optional = resolved.get("properties", {}).keys() - set(resolved.get("required", ()))
        resolved["properties"] = {
            name: _or_null(field) if name in optional else field
            for name, field in resolved.get("properties", {}).items()
        }
        return schema


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    null = {"type": "null"}
    if null in schema.get("anyOf", ()):
        return schema
    annotations = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    return {
        "anyOf": [{k: v for k, v in schema.items() if k not in annotations}, null],
        **annotations,
    }


def rfc3339(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def is_none(value: object) -> bool:
    """For `exclude_if`, which leaves a field out of the JSON."""
    return value is None


def one_text_block(content: object) -> object:
    """For `BeforeValidator`: content given as a string is one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def new_id(prefix: str) -> str:
    """Return a random identifier in Anthropic's form: `msg_01…`, `req_01…`."""
    return f"{prefix}_01" + "".join(secrets.choice(_ID_CHARS) for _ in range(22))
