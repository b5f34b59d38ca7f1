"""Answers as generated, on disk: so that after a restart too a conversation goes on with the very tokens of the prefix cache.

One file for a model's tokenizer, those of models not used lately removed; in it a line for an answer with a checksum before it:
what a crash leaves half, or a disk altered, is passed over. Written behind by one thread; a full disk costs what would have been kept, and nothing else.
"""

import logging
import os
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread

from pensieve.api.messages.message import AnswerRecord
from pensieve.atomic_files import write_atomically
from pensieve.private_files import make_folder, open_private, read_private
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers

_log = logging.getLogger("pensieve.server")

# Twice what the words in memory come to as lines. A larger file is written anew, with what is still known.
MAX_BYTES = 64_000_000
# An answer may have been added since the file had its size.
MOST_READ_BYTES = 2 * MAX_BYTES
# Of other tokenizers, those of the models used last; the rest goes when a server starts.
OTHER_FILES = 3
_CHECKSUM_CHARS = 8


class GeneratedAnswerStore:
    """Owns the file while it is `open`, and the thread that writes it. words: what the file is a copy of.

    has_token: whether the tokenizer has a token with an id.
    """

    def __init__(
        self,
        folder: Path,
        model_folder: Path,
        words: GeneratedAnswers,
        has_token: Callable[[int], bool],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._folder = folder
        self._model_folder = model_folder
        self._words = words
        self._has_token = has_token
        self._max_bytes = max_bytes
        self._bytes = 0
        self._writer: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Read what is there, in the background, and write what is remembered from now on."""
        writer = ThreadPoolExecutor(1, thread_name_prefix="answers")
        writer.submit(self._tidy)
        writer.submit(self._read)
        self._writer = writer
        try:
            yield
        finally:
            self._writer = None
            await anyio.to_thread.run_sync(writer.shutdown)

    def remember(self, spoken: GeneratedAnswer) -> None:
        """Keep an answer. Costs the caller nothing but its place in the line."""
        self._words.keep(spoken)
        if self._writer is not None:
            self._writer.submit(self._append, spoken)

    # On the writer's thread.

    @cached_property
    def _file(self) -> Path:
        """Tokens mean something to one tokenizer alone."""
        known = blake2b(digest_size=16)
        for pattern in ("tokenizer*", "chat_template*"):
            for file in sorted(self._model_folder.glob(pattern)):
                known.update(file.read_bytes())
        return self._folder / f"{known.hexdigest()}.jsonl"

    def _tidy(self) -> None:
        try:
            others = [file for file in self._folder.glob("*.jsonl") if file != self._file]
            others.sort(key=lambda file: file.stat().st_mtime)
            for file in others[:-OTHER_FILES]:
                file.unlink()
        except OSError as error:
            _log.warning("answers of models no longer used cannot be removed: %s", error)

    def _read(self) -> None:
        try:
            written = read_private(self._file, MOST_READ_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("answers of earlier conversations cannot be read: %s", error)
            return
        self._bytes = len(written)
        for spoken in _whole(written):
            if all(0 <= token < 2**31 and self._has_token(token) for token in set(spoken.tokens)):
                self._words.keep(spoken)

    def _append(self, spoken: GeneratedAnswer) -> None:
        line = _line(spoken)
        try:
            if self._bytes + len(line) > self._max_bytes:
                self._write_anew()
                return
            for folder in (self._folder.parent, self._folder):
                make_folder(folder)
            descriptor = open_private(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(descriptor, "ab") as file:
                self._bytes = file.tell() + file.write(line)
        except OSError as error:
            _log.warning("an answer is not kept on disk: %s", error)

    def _write_anew(self) -> None:
        lines = [_line(spoken) for spoken in self._words.kept()]
        self._bytes = write_atomically(self._file, lines)


def _line(spoken: GeneratedAnswer) -> bytes:
    """A line break at its head too: what was left half before it is a line of its own then."""
    record = AnswerRecord(
        opening=spoken.opening, tokens=tuple(spoken.tokens), content=spoken.content
    )
    text = record.to_json().encode()
    return b"\n%08x%s\n" % (zlib.crc32(text), text)


def _whole(written: bytes) -> Iterator[GeneratedAnswer]:
    """The answers whose lines are as they were written."""
    for line in written.split(b"\n"):
        checksum, text = line[:_CHECKSUM_CHARS], line[_CHECKSUM_CHARS:]
        if not text or checksum != b"%08x" % zlib.crc32(text):
            continue
        try:
            record = AnswerRecord.model_validate_json(text)
        except ValueError:  # of another version
            continue
        yield GeneratedAnswer(record.opening, record.tokens, record.content)
