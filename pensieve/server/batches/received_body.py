"""Receives the large body of a new batch into a file and maps it as one piece of bytes."""

import mmap
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO

from starlette.requests import Request

from pensieve.private_files import make_folder, open_private
from pensieve.server.http.request_body import body_chunks, require_json
from pensieve.worker_threads import run_disk_io

# Written in pieces of this size.
CHUNK_BYTES = 2**20


@asynccontextmanager
async def received_body(request: Request, path: Path) -> AsyncGenerator[bytes | mmap.mmap]:
    """Yield the whole body of a JSON request, received into the new file `path`.

    The file is removed if the block raises. Raises what `read_body` raises, OSError, and
    `DiskFullError`.
    """
    require_json(request)
    try:
        with await run_disk_io(partial(_new_file, path)) as file:
            buffer = bytearray()
            async for chunk in body_chunks(request):
                buffer += chunk
                if len(buffer) > CHUNK_BYTES:
                    await run_disk_io(partial(_write, file, buffer))
                    buffer = bytearray()
            await run_disk_io(partial(_write, file, buffer))
            with _mapped(file) as body:
                yield body
    except BaseException:
        _remove(path)
        raise


def _new_file(path: Path) -> IO[bytes]:
    make_folder(path.parent)
    return os.fdopen(open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), "r+b", buffering=0)


def _write(file: IO[bytes], content: bytearray) -> None:
    """Unbuffered: bytes of a failed write must not be written when the file is closed."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _mapped(file: IO[bytes]) -> mmap.mmap | nullcontext[bytes]:
    # An empty file cannot be mapped.
    is_empty = not os.fstat(file.fileno()).st_size
    return nullcontext(b"") if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _remove(path: Path) -> None:
    """In the event loop: a cancelled task could not wait for a thread."""
    path.unlink(missing_ok=True)
