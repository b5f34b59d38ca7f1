"""Runs a decoding process for each file, one at a time.

A process of its own bounds what a hostile file can take: memory, time, and what a fault in the
library can reach. It is started anew for each file (0.1 s of a core, 2026-12-01, x86-64), so none
carries anything into the next.
"""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import partial
from hashlib import blake2b
from typing import Generic, TypeVar, cast

import anyio
from anyio.abc import Process

from pensieve.errors import EngineBusyError
from pensieve.isolation import python
from pensieve.media.outcome import PageSizes, PdfPages, Picture, Refusal
from pensieve.media.picture_size import PictureBounds
from pensieve.settings.resolve import bare_environment
from pensieve.untrusted_json import read_object
from pensieve.worker_threads import run_in_thread

# Longer than the process takes on a busy machine, which ends by itself after 20 s of a core.
TIMEOUT_S = 45.0
MAX_RESULT_BYTES = 64 * 1024**2  # 8 million characters, escaped
# Of texts, and as much of pictures: 16 of the default size.
MAX_CACHED_BYTES = 64_000_000
ENTRY_BYTES = 1000  # what a result takes besides its content
PROGRAM = ("-m", "pensieve.media.program")

T = TypeVar("T", PdfPages, PageSizes, Picture)


class Decoder:
    """Owns what was read of the latest files: a conversation sends them again with every turn."""

    def __init__(
        self,
        program: Sequence[str] = PROGRAM,
        timeout_s: float = TIMEOUT_S,
        max_cached_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        """program: arguments for Python."""
        self._command = python(*program)
        self._timeout_s = timeout_s
        self._slot = anyio.Semaphore(1)
        self._pdfs = _Cache[PdfPages](_pdf_bytes, max_cached_bytes)
        self._sizes = _Cache[PageSizes](_sizes_bytes, max_cached_bytes)
        self._pictures = _Cache[Picture](_picture_bytes, max_cached_bytes)

    async def pdf_pages(self, content: bytes) -> PdfPages | Refusal:
        """Raises `EngineBusyError` if the machine has no time or no room for a process."""
        return await self._result(["pdf"], content, self._pdfs, _pdf_of)

    async def page_sizes(self, content: bytes) -> PageSizes | Refusal:
        """Return the sizes of a PDF's pages. Raises as `pdf_pages`."""
        return await self._result(["sizes"], content, self._sizes, _sizes_of)

    async def page_picture(
        self, content: bytes, index: int, size: tuple[int, int]
    ) -> Picture | Refusal:
        """Draw a page of a PDF. Raises as `pdf_pages`."""
        job = ["page", *map(str, (index, *size))]
        return await self._result(job, content, self._pictures, _picture_of)

    async def picture(self, content: bytes, bounds: PictureBounds) -> Picture | Refusal:
        """Raises `EngineBusyError` if the machine has no time or no room for a process."""
        job = ["picture", *map(str, astuple(bounds))]
        return await self._result(job, content, self._pictures, _picture_of)

    async def _result(
        self,
        job: Sequence[str],
        content: bytes,
        cache: "_Cache[T]",
        parse: Callable[[bytes], T | Refusal],
    ) -> T | Refusal:
        key = await run_in_thread(partial(_key_of, job, content))
        if (result := cache.get(key)) is not None:
            return result
        async with self._slot:
            # Another request may have had the same file read meanwhile.
            if (result := cache.get(key)) is None:
                output = await self._output(job, content)
                result = await run_in_thread(partial(parse, output))
                # The system may have ended the process, for want of memory.
                if result is not Refusal.TOO_COSTLY:
                    cache.add(key, result)
        return result

    async def _output(self, job: Sequence[str], content: bytes) -> bytes:
        """Return the output of a process; empty if it failed."""
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._run(job, content)
        except TimeoutError:
            raise EngineBusyError("The server was too busy to read a file.") from None
        except OSError as error:
            raise EngineBusyError(f"No process to read a file could be started: {error}") from error

    async def _run(self, job: Sequence[str], content: bytes) -> bytes:
        process = await anyio.open_process(
            [*self._command, *job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=bare_environment(),
        )
        try:
            return await _exchange(process, content)
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()


class _Cache(Generic[T]):
    """The latest results, by their job and the content of their file."""

    def __init__(self, bytes_of: Callable[[T], int], max_bytes: int) -> None:
        self._results: dict[bytes, T | Refusal] = {}
        self._bytes_of = bytes_of
        self._max_bytes = max_bytes
        self._bytes = 0

    def get(self, key: bytes) -> T | Refusal | None:
        if key not in self._results:
            return None
        result = self._results[key] = self._results.pop(key)  # the latest is the last
        return result

    def add(self, key: bytes, result: T | Refusal) -> None:
        self._results[key] = result
        self._bytes += self._weight(result)
        while self._bytes > self._max_bytes:
            self._bytes -= self._weight(self._results.pop(next(iter(self._results))))

    def _weight(self, result: T | Refusal) -> int:
        return ENTRY_BYTES + (0 if isinstance(result, Refusal) else self._bytes_of(result))


def _key_of(job: Sequence[str], content: bytes) -> bytes:
    return blake2b(content, digest_size=16, key=" ".join(job).encode()).digest()


def _pdf_bytes(pages: PdfPages) -> int:
    return sum(4 * len(text or "") for text in pages)  # at most


def _sizes_bytes(sizes: PageSizes) -> int:
    return 200 * len(sizes)


def _picture_bytes(picture: Picture) -> int:
    return len(picture.pixels)


async def _exchange(process: Process, content: bytes) -> bytes:
    assert process.stdin
    assert process.stdout
    try:
        await process.stdin.send(content)
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return b""
    result = bytearray()
    async for chunk in process.stdout:
        result += chunk
        if len(result) > MAX_RESULT_BYTES:
            return b""
    return bytes(result) if await process.wait() == 0 else b""


def _pdf_of(result: bytes) -> PdfPages | Refusal:
    """Return what a process wrote. The file may have taken it over, so nothing of it is trusted."""
    try:
        fields = read_object(result)
        pages = fields.get("pages")
        if isinstance(pages, list):
            return tuple(map(_text, cast("list[object]", pages)))
        return Refusal(fields.get("refusal"))
    except ValueError:
        return Refusal.TOO_COSTLY


def _text(page: object) -> str | None:
    if page is None:
        return None
    text = str(page)
    text.encode()  # raises for half a surrogate pair, which no tokenizer takes
    return text


def _sizes_of(result: bytes) -> PageSizes | Refusal:
    try:
        fields = read_object(result)
        sizes = fields.get("sizes")
        if isinstance(sizes, list):
            return tuple(map(_size, cast("list[object]", sizes)))
        return Refusal(fields.get("refusal"))
    except ValueError:
        return Refusal.TOO_COSTLY


def _size(page: object) -> tuple[int, int] | None:
    match page:
        case [int(width), int(height)] if min(width, height) > 0 and max(width, height) < 2**31:
            return width, height
        case None:
            return None
        case _:
            raise ValueError("no size")


def _picture_of(result: bytes) -> Picture | Refusal:
    line, _, pixels = result.partition(b"\n")
    try:
        fields = read_object(line)
        width, height = fields.get("width"), fields.get("height")
        if not (isinstance(width, int) and isinstance(height, int)):
            return Refusal(fields.get("refusal"))
        is_whole = min(width, height) > 0 and len(pixels) == width * height * 3
        return Picture(width, height, pixels) if is_whole else Refusal.TOO_COSTLY
    except ValueError:
        return Refusal.TOO_COSTLY
