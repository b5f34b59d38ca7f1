"""Receives a large request body into a temporary file and maps it as one piece of bytes."""

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
from pensieve.server.http.request_body import body_chunks, require_json
from pensieve.worker_threads import run_disk_io

# Smaller bodies never touch the disk; larger ones are written in chunks of this size.
CHUNK_BYTES = 2**20


@asynccontextmanager
async def spooled_body(request: Request, folder: Path) -> AsyncGenerator[bytes | mmap.mmap]:
    """Yield the whole body of a JSON request. Creates `folder` if it is missing.

    Raises what `read_body` raises, OSError, and `DiskFullError`.
    """
    require_json(request)
    chunks = body_chunks(request)
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        if len(buffer) > CHUNK_BYTES:
            break
    else:
        yield bytes(buffer)
        return
    with await run_disk_io(partial(_unnamed_file, folder)) as file:
        async for chunk in chunks:
            buffer += chunk
            if len(buffer) > CHUNK_BYTES:
                await run_disk_io(partial(_write, file, buffer))
                buffer = bytearray()
        await run_disk_io(partial(_write, file, buffer))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            yield body


def _unnamed_file(folder: Path) -> IO[bytes]:
    """The file disappears with the process, however that ends."""
    make_folder(folder)
    return tempfile.TemporaryFile(dir=folder, buffering=0, suffix=TEMPORARY)


def _write(file: IO[bytes], content: bytearray) -> None:
    """Unbuffered: bytes of a failed write must not be written when the file is closed."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
