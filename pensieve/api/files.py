"""Values of the files endpoints: fields of an upload, metadata of files, pages of files."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pensieve.api.base import ApiModel, Timestamp
from pensieve.api.errors import first_error
from pensieve.api.pagination import DEFAULT_LIMIT, INTEGER_TEXT, Limit, Query
from pensieve.errors import InvalidRequestError

MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 90 * 24 * 3600
MAX_IDS = 100


class UploadFields(ApiModel):
    """The fields of a multipart upload, next to the file."""

    expires_in_seconds: (
        Annotated[int, Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S), INTEGER_TEXT] | None
    ) = None


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
    """A page of files, newest first; `next_page` is the `page` of the next request."""

    data: tuple[FileMetadata, ...]
    next_page: str | None = None


class DeletedFile(ApiModel):
    """The response to the deletion of a file."""

    id: str
    type: Literal["file_deleted"] = "file_deleted"


_PAGE = re.compile(r"page_([0-9]{1,12}(?:\.[0-9]{1,17})?)_(file_[0-9A-Za-z]{1,64})", re.ASCII)


def page_token(after: tuple[float, str]) -> str:
    """Return a token for the page after the file with this creation time and id.

    It stays valid if the file is deleted.
    """
    created_at, file_id = after
    return f"page_{created_at!r}_{file_id}"


def _page(token: object) -> object:
    match = _PAGE.fullmatch(token) if isinstance(token, str) else None
    if match is None:
        raise PydanticCustomError("page", "Input should be a next_page of this list")
    return float(match[1]), match[2]


class FilesQuery(Query):
    """Lists a page of all files, or the files with the given ids."""

    limit: Limit = DEFAULT_LIMIT
    page: Annotated[
        tuple[float, str] | None, BeforeValidator(_page, json_schema_input_type=str | None)
    ] = None
    ids: Annotated[tuple[str, ...], Field(alias="ids[]")] = ()

    @model_validator(mode="after")
    def _check_exclusive(self) -> Self:
        if len(set(self.ids)) > MAX_IDS:
            raise PydanticCustomError(
                "too_many_ids", "ids[]: at most {max_ids} ids can be given", {"max_ids": MAX_IDS}
            )
        if self.ids and self.model_fields_set & {"limit", "page"}:
            raise PydanticCustomError("ids_and_page", "ids[]: not together with page or limit")
        return self


def upload_fields(fields: dict[str, str]) -> UploadFields:
    """Raises `InvalidRequestError`."""
    try:
        return UploadFields.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequestError(first_error(error)) from None
