"""Runs a decoding process for each file, one at a time.

A process of its own bounds what a hostile file can take: memory, time, and what a fault in the
library can reach. It is started anew for each file (0.1 s of a core, 2026-12-01, x86-64), so none
carries anything into the next.
"""

import subprocess
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import cast

import anyio
from anyio.abc import Process

from pensieve.errors import EngineBusyError
from pensieve.isolation import python
from pensieve.media.outcome import PdfPages, Refusal
from pensieve.settings.resolve import bare_environment
from pensieve.untrusted_json import read_object
from pensieve.worker_threads import run_in_thread

# Longer than the process takes on a busy machine, which ends by itself after 20 s of a core.
TIMEOUT_S = 45.0
MAX_RESULT_BYTES = 64 * 1024**2  # 8 million characters, escaped
MAX_CACHED_CHARS = 16_000_000
ENTRY_CHARS = 1000  # what a result takes besides its text
PROGRAM = ("-m", "pensieve.media.program")


class Decoder:
    """Owns what was read of the latest files: a conversation sends them again with every turn."""

    def __init__(
        self,
        program: Sequence[str] = PROGRAM,
        timeout_s: float = TIMEOUT_S,
        max_cached_chars: int = MAX_CACHED_CHARS,
    ) -> None:
        """program: arguments for Python."""
        self._command = python(*program)
        self._timeout_s = timeout_s
        self._slot = anyio.Semaphore(1)
        self._cache = _Cache(max_cached_chars)

    async def pdf_pages(self, content: bytes) -> PdfPages | Refusal:
        """Raises `EngineBusyError` if the machine has no time or no room for a process."""
        key = await run_in_thread(lambda: blake2b(content, digest_size=16).digest())
        if (result := self._cache.get(key)) is not None:
            return result
        async with self._slot:
            # Another request may have had the same file read meanwhile.
            if (result := self._cache.get(key)) is None:
                result = await self._pdf_pages(content)
                # The system may have ended the process, for want of memory.
                if result is not Refusal.TOO_COSTLY:
                    self._cache.add(key, result)
        return result

    async def _pdf_pages(self, content: bytes) -> PdfPages | Refusal:
        try:
            with anyio.fail_after(self._timeout_s):
                output = await self._run(content)
        except TimeoutError:
            raise EngineBusyError("The server was too busy to read a PDF.") from None
        except OSError as error:
            raise EngineBusyError(f"No process to read a PDF could be started: {error}") from error
        return await run_in_thread(partial(_pdf_of, output))

    async def _run(self, content: bytes) -> bytes:
        """Return the output of a process; empty if it failed."""
        process = await anyio.open_process(
            self._command,
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


class _Cache:
    """The latest results, by the content of their file."""

    def __init__(self, max_chars: int) -> None:
        self._results: dict[bytes, PdfPages | Refusal] = {}
        self._max_chars = max_chars
        self._chars = 0

    def get(self, key: bytes) -> PdfPages | Refusal | None:
        if key not in self._results:
            return None
        result = self._results[key] = self._results.pop(key)  # the latest is the last
        return result

    def add(self, key: bytes, result: PdfPages | Refusal) -> None:
        self._results[key] = result
        self._chars += _weight(result)
        while self._chars > self._max_chars:
            self._chars -= _weight(self._results.pop(next(iter(self._results))))


def _weight(result: PdfPages | Refusal) -> int:
    texts = () if isinstance(result, Refusal) else result
    return ENTRY_CHARS + sum(len(text or "") for text in texts)


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
        found = read_object(result)
        pages, reason = found.get("pages"), found.get("refusal")
        if isinstance(pages, list):
            return tuple(map(_text, cast("list[object]", pages)))
        return Refusal(reason)
    except ValueError:
        return Refusal.TOO_COSTLY


def _text(page: object) -> str | None:
    if page is None:
        return None
    text = str(page)
    text.encode()  # raises for half a surrogate pair, which no tokenizer takes
    return text
