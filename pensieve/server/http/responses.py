"""Responses of all endpoints: a value as JSON, and stored bytes: a file, or rows of a database."""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pensieve.api.base import ApiModel

CHUNK_BYTES = 256 * 1024


def json_response(value: ApiModel) -> Response:
    return Response(value.to_json(), media_type="application/json")


@dataclass(frozen=True, slots=True)
class Content:
    size: int
    chunks: Iterator[bytes]  # none is empty; each is read in a worker thread


class Download(Response):
    """Streams stored bytes. No ranges: they have caused denial of service (CVE-2025-62727).

    They may be deleted during the download. Raises OSError if they cannot be opened.
    """

    def __init__(self, content: AbstractContextManager[Content], media_type: str) -> None:
        # A browser must not show uploaded content as a page of this origin.
        super().__init__(headers={"content-disposition": "attachment"}, media_type=media_type)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            enter = partial(stack.enter_context, self._content)
            content = await anyio.to_thread.run_sync(enter)
            self.headers["content-length"] = str(content.size)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] != "HEAD":
                read = partial(next, content.chunks, b"")
                while chunk := await anyio.to_thread.run_sync(read):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def file_content(path: Path) -> Generator[Content]:
    with path.open("rb") as file:
        yield Content(os.fstat(file.fileno()).st_size, iter(partial(file.read, CHUNK_BYTES), b""))


def in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces, none of which is empty, to chunks of about `CHUNK_BYTES`."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
