"""`/v1/files`: texts, PDFs and pictures that clients upload and reference in messages by their
id.
"""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.base import rfc3339
from pensieve.api.files import DeletedFile, FileMetadata, FilePage, FilesQuery, page_token
from pensieve.server.files.store import FileStore, StoredFile, sort_key
from pensieve.server.files.uploads import MAX_OVERHEAD_BYTES, read_upload
from pensieve.server.http.responses import Download, file_content, json_response
from pensieve.server.middleware.request_context import key_name_of
from pensieve.worker_threads import run_disk_io


class FilesEndpoint:
    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.max_body = store.limits.file_bytes + MAX_OVERHEAD_BYTES

    async def upload(self, request: Request) -> Response:
        upload = await read_upload(request, max_bytes=self._store.limits.file_bytes)
        add = partial(
            self._store.add,
            upload.content,
            upload.filename,
            upload.mime_type,
            upload.fields.expires_in_seconds,
            key_name_of(request),
        )
        return json_response(self._metadata(await run_disk_io(add)))

    async def list(self, request: Request) -> Response:
        query = FilesQuery.of(request.query_params.multi_items())
        files = await run_disk_io(partial(self._store.list_files, key_name_of(request)))
        if query.ids:
            matches = [file for file in files if file.id in query.ids]
            return json_response(FilePage(data=tuple(map(self._metadata, matches))))
        if query.page is not None:
            files = [file for file in files if sort_key(file) < query.page]
        visible = files[: query.limit]
        next_page = page_token(sort_key(visible[-1])) if len(files) > len(visible) else None
        return json_response(
            FilePage(data=tuple(map(self._metadata, visible)), next_page=next_page)
        )

    async def retrieve(self, request: Request) -> Response:
        return json_response(self._metadata(await self._file(request)))

    async def content(self, request: Request) -> Response:
        file = await self._file(request)
        return Download(file_content(self._store.content(file)), file.mime_type)

    async def delete(self, request: Request) -> Response:
        await run_disk_io(partial(self._store.delete, _file_id(request), key_name_of(request)))
        return json_response(DeletedFile(id=_file_id(request)))

    async def _file(self, request: Request) -> StoredFile:
        return await run_disk_io(partial(self._store.get, _file_id(request), key_name_of(request)))

    def _metadata(self, file: StoredFile) -> FileMetadata:
        return FileMetadata(
            id=file.id,
            filename=file.filename,
            mime_type=file.mime_type,
            size_bytes=file.size_bytes,
            created_at=rfc3339(file.created_at),
            expires_at=None if file.expires_at is None else rfc3339(file.expires_at),
            downloadable=not self._store.is_expired(file),
        )


def _file_id(request: Request) -> str:
    return str(request.path_params["file_id"])
