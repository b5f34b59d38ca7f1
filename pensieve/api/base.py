"""What all wire values share: frozen, fields that are not ours ignored, null read as absent. No I/O."""

import secrets
import string
from datetime import UTC, datetime
from typing import Annotated, cast

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


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# A moment, from Unix seconds or as it is written: RFC 3339.
Timestamp = Annotated[
    datetime,
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class ApiModel(BaseModel):
    """A value of Anthropic's wire."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> str:
        """One line of ASCII: old clients split lines at U+2028."""
        return self.model_dump_json(ensure_ascii=True)


class RequestModel(ApiModel):
    """A part of a request. Some clients write null for what they leave out; so an optional null is absent."""

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
        """The schema says of null what is done with it."""
        schema = handler(core_schema)
        found = handler.resolve_ref_schema(schema)
        optional = found.get("properties", {}).keys() - set(found.get("required", ()))
        found["properties"] = {
            name: _or_null(field) if name in optional else field
            for name, field in found.get("properties", {}).items()
        }
        return schema


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    null = {"type": "null"}
    if null in schema.get("anyOf", ()):
        return schema
    told = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    return {"anyOf": [{k: v for k, v in schema.items() if k not in told}, null], **told}


def rfc3339(unix_s: float) -> datetime:
    """A point in time that is kept as Unix seconds."""
    return datetime.fromtimestamp(unix_s, UTC)


def is_none(value: object) -> bool:
    """For fields that are left out where there is nothing to say."""
    return value is None


def new_id(prefix: str) -> str:
    """A fresh identifier in Anthropic's form: `msg_01…`, `req_01…`."""
    return f"{prefix}_01" + "".join(secrets.choice(_ID_CHARS) for _ in range(22))
