"""Query parameters of URLs, and pagination by object id, as models and batches use it.

Unknown parameters are ignored. Files are paginated by token instead (files.py).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self, get_origin

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from pensieve.api.base import ApiModel
from pensieve.api.errors import first_error
from pensieve.errors import InvalidRequestError

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000

_DECIMAL = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def _integer(value: object) -> object:
    # pydantic by itself would also accept `1_0`, ` 10` and `10.0`.
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise PydanticCustomError(
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            )
        return int(value)
    return value


# For integers that arrive as text.
INTEGER_TEXT = BeforeValidator(_integer)
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), INTEGER_TEXT]


class Query(ApiModel):
    """Query parameters of a URL. A field whose alias ends in `[]` takes every value of its name."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """Parse pairs of names and values. The last value counts, unless the field is a list.

        Raises `InvalidRequestError`.
        """
        fields: dict[str, str | list[str]] = {}
        for name, value in pairs:
            if name in cls._lists():
                fields[name] = [*fields.get(name, []), value]
            else:
                fields[name] = value
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequestError(first_error(error)) from None

    @classmethod
    def _lists(cls) -> set[str]:
        return {
            field.alias or name
            for name, field in cls.model_fields.items()
            if get_origin(field.annotation) is tuple
        }


class CursorQuery(Query):
    """A page that begins after one object, ends before one, or begins at the newest."""

    limit: Limit = DEFAULT_LIMIT
    after_id: str | None = None
    before_id: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The indexes of a page within a listing."""

    start: int
    stop: int
    has_more: bool  # in the direction of the query


def window(ids: Sequence[str], query: CursorQuery) -> Window:
    """Return the page of `ids` for `query`. Raises `InvalidRequestError` for an unknown cursor."""
    if query.after_id is not None and query.before_id is not None:
        raise InvalidRequestError("after_id, before_id: only one of them can be given")
    if query.before_id is not None:
        stop = _position(ids, query.before_id, "before_id")
        start = max(0, stop - query.limit)
        return Window(start, stop, has_more=start > 0)
    start = 0 if query.after_id is None else _position(ids, query.after_id, "after_id") + 1
    stop = min(len(ids), start + query.limit)
    return Window(start, stop, has_more=stop < len(ids))


def _position(ids: Sequence[str], cursor: str, name: str) -> int:
    try:
        return ids.index(cursor)
    except ValueError:
        raise InvalidRequestError(f"{name}: no object here has this id") from None
