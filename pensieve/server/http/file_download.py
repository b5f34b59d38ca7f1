"""A file of ours sent as it is, piece by piece. No ranges: they have cost servers dear (CVE-2025-62727)."""

import os
from pathlib import Path

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE_BYTES = 256 * 1024


class FileDownload(Response):
    """The response that sends a file. It may be deleted meanwhile. Raises OSError where it cannot be opened."""

    def __init__(self, path: Path, media_type: str) -> None:
        # Nothing that a client stored may be taken for a page or a script of ours.
        headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
        super().__init__(headers=headers, media_type=media_type)
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, in worker threads as far as the disk is concerned."""
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
                while piece := await file.read(PIECE_BYTES):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
