"""The files endpoint's values: what an upload says beside the file, a file's metadata, a page of files."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pensieve.api.base import ApiModel, Timestamp
from pensieve.api.errors import first_error
from pensieve.api.pagination import DEFAULT_LIMIT, WRITTEN, Limit, Query
from pensieve.errors import InvalidRequestError

MIN_LIFE_S = 3600
MAX_LIFE_S = 90 * 24 * 3600
MAX_IDS = 100


class UploadFields(ApiModel):
    """What a multipart upload holds beside its file."""

    expires_in_seconds: Annotated[int, Field(ge=MIN_LIFE_S, le=MAX_LIFE_S), WRITTEN] | None = None


class FileMetadata(ApiModel):
    """One uploaded file."""

    id: str
    type: Literal["file"] = "file"
    filename: str
    mime_type: str
    size_bytes: int
    created_at: Timestamp
    expires_at: Timestamp | None = None
    downloadable: bool = True


class FilePage(ApiModel):
    """A page of files, the newest first; the next one is asked for by `next_page`."""

    data: tuple[FileMetadata, ...]
    next_page: str | None = None


class DeletedFile(ApiModel):
    """What is said of a file that is gone."""

    id: str
    type: Literal["file_deleted"] = "file_deleted"


_PAGE = re.compile(r"page_([0-9]{1,12}(?:\.[0-9]{1,17})?)_(file_[0-9A-Za-z]{1,64})", re.ASCII)


def page_token(after: tuple[float, str]) -> str:
    """Say where the next page begins: right after the file of this time and id, even if it is deleted meanwhile."""
    created_at, file_id = after
    return f"page_{created_at!r}_{file_id}"


def _page(token: object) -> object:
    """Digits and an id's own characters alone: there is nothing in it to decode."""
    match = _PAGE.fullmatch(token) if isinstance(token, str) else None
    if match is None:
        raise PydanticCustomError("page", "Input should be a next_page of this list")
    return float(match[1]), match[2]


class FilesQuery(Query):
    """Which files are listed: a page of all, or those with certain ids."""

    limit: Limit = DEFAULT_LIMIT
    page: Annotated[
        tuple[float, str] | None, BeforeValidator(_page, json_schema_input_type=str | None)
    ] = None
    ids: Annotated[tuple[str, ...], Field(alias="ids[]")] = ()

    @model_validator(mode="after")
    def _ids_or_a_page(self) -> Self:
        if len(set(self.ids)) > MAX_IDS:
            raise PydanticCustomError(
                "too_many_ids", "ids[]: at most {most} ids can be given", {"most": MAX_IDS}
            )
        if self.ids and self.model_fields_set & {"limit", "page"}:
            raise PydanticCustomError("ids_and_page", "ids[]: not together with page or limit")
        return self


def upload_fields(fields: dict[str, str]) -> UploadFields:
    """The form's fields decoded. Raises `InvalidRequestError`."""
    try:
        return UploadFields.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequestError(first_error(error)) from None
