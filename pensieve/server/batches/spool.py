"""A large body on the disk while it is read: what comes in is written down, and seen as one piece of bytes."""

import mmap
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO

from starlette.requests import Request

from pensieve.atomic_files import TEMPORARY
from pensieve.private_files import make_folder
from pensieve.server.disk_io import run_disk_io
from pensieve.server.http.request_body import body_chunks, require_json

# Bodies that are not larger never touch the disk; of larger ones so much is written at once.
PIECE_BYTES = 2**20


@asynccontextmanager
async def spooled_body(
    request: Request, folder: Path, *, max_bytes: int
) -> AsyncGenerator[bytes | mmap.mmap]:
    """The body of a JSON request, whole, for as long as the block lasts. `folder` is made where it is missing.

    Raises what `read_body` raises, OSError, and `DiskFullError`.
    """
    require_json(request)
    chunks = body_chunks(request, max_bytes=max_bytes)
    piece = bytearray()
    async for chunk in chunks:
        piece += chunk
        if len(piece) > PIECE_BYTES:
            break
    else:
        yield bytes(piece)
        return
    with await run_disk_io(partial(_unnamed_file, folder)) as file:
        async for chunk in chunks:
            piece += chunk
            if len(piece) > PIECE_BYTES:
                await run_disk_io(partial(_write, file, piece))
                piece = bytearray()
        await run_disk_io(partial(_write, file, piece))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            yield body


def _unnamed_file(folder: Path) -> IO[bytes]:
    """Is gone with the process, however that ends."""
    make_folder(folder)
    return tempfile.TemporaryFile(dir=folder, buffering=0, suffix=TEMPORARY)


def _write(file: IO[bytes], content: bytearray) -> None:
    """Past any buffer: what a failed write left in one would be written when the file is closed."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
