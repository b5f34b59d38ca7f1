"""What all wire values share: frozen, fields that are not ours ignored, null read as absent. No I/O."""

import secrets
import string
from typing import cast

from pydantic import BaseModel, ConfigDict, model_validator

_ID_LETTERS = string.digits + string.ascii_letters


class Wire(BaseModel):
    """A value of Anthropic's wire."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> str:
        """One line of ASCII: old clients split lines at U+2028."""
        return self.model_dump_json(ensure_ascii=True)


class Request(Wire):
    """The body of a request. Some clients write null for what they leave out; so an optional null is absent."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: object) -> object:
        if not isinstance(body, dict):
            return body
        fields = cast("dict[str, object]", body)
        return {
            name: value
            for name, value in fields.items()
            if value is not None
            or (name in cls.model_fields and cls.model_fields[name].is_required())
        }


def new_id(prefix: str) -> str:
    """A fresh identifier in Anthropic's form: `msg_01…`, `req_01…`."""
    return f"{prefix}_01" + "".join(secrets.choice(_ID_LETTERS) for _ in range(22))
