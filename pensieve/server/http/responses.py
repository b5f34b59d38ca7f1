"""Responses of all endpoints: a wire value as JSON, and a stored file."""

import os
from pathlib import Path

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pensieve.api.base import ApiModel

CHUNK_BYTES = 256 * 1024


def json_response(value: ApiModel) -> Response:
    return Response(value.to_json(), media_type="application/json")


class FileDownload(Response):
    """Streams a file. No ranges: they have caused denial of service (CVE-2025-62727).

    The file may be deleted during the download. Raises OSError if it cannot be opened."""

    def __init__(self, path: Path, media_type: str) -> None:
        # A browser must not treat uploaded content as a page or script of this origin.
        headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
        super().__init__(headers=headers, media_type=media_type)
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with await anyio.open_file(self._path, "rb") as file:
            self.headers["content-length"] = str(os.fstat(file.wrapped.fileno()).st_size)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] != "HEAD":
                while chunk := await file.read(CHUNK_BYTES):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
