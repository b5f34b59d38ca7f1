"""Stores answers as generated on disk, so that prompts after a restart still match the prefix
cache.

There is one file per tokenizer; those of models not used lately are removed. Each answer is a line
that starts with a checksum: a line that a crash cut short or that was altered is skipped. One
thread writes in the background; on a full disk answers are dropped and nothing else fails.
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

# Twice the size of all answers in memory as lines. A larger file is rewritten with those.
MAX_BYTES = 64_000_000
# An answer may be appended after the size was checked.
MAX_READ_BYTES = 2 * MAX_BYTES
# How many files of other tokenizers stay when a server starts: those used last.
OTHER_FILES = 3
_CHECKSUM_CHARS = 8


class GeneratedAnswerStore:
    """Owns the file while it is `open`, and the thread that writes it.

    The file is a copy of `answers`.
    """

    def __init__(
        self,
        folder: Path,
        model_folder: Path,
        answers: GeneratedAnswers,
        has_token: Callable[[int], bool],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._folder = folder
        self._model_folder = model_folder
        self._answers = answers
        self._has_token = has_token
        self._max_bytes = max_bytes
        self._bytes = 0
        self._writer: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Read the file in the background, then append the answers that are added."""
        writer = ThreadPoolExecutor(1, thread_name_prefix="answers")
        writer.submit(self._remove_old_files)
        writer.submit(self._read)
        self._writer = writer
        try:
            yield
        finally:
            self._writer = None
            await anyio.to_thread.run_sync(writer.shutdown)

    def add(self, answer: GeneratedAnswer) -> None:
        """Add an answer and queue its write. Does not block."""
        self._answers.add(answer)
        if self._writer is not None:
            self._writer.submit(self._append, answer)

    # The following run on the writer's thread.

    @cached_property
    def _file(self) -> Path:
        # Token ids are valid for one tokenizer alone.
        digest = blake2b(digest_size=16)
        for pattern in ("tokenizer*", "chat_template*"):
            for file in sorted(self._model_folder.glob(pattern)):
                digest.update(file.read_bytes())
        return self._folder / f"{digest.hexdigest()}.jsonl"

    def _remove_old_files(self) -> None:
        try:
            others = [file for file in self._folder.glob("*.jsonl") if file != self._file]
            others.sort(key=lambda file: file.stat().st_mtime)
            for file in others[:-OTHER_FILES]:
                file.unlink()
        except OSError as error:
            _log.warning(
                "failed to remove stored answers of other models, they stay on disk: %s", error
            )

    def _read(self) -> None:
        try:
            content = read_private(self._file, MAX_READ_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning(
                "failed to read stored answers, old conversations may miss the prefix cache: %s",
                error,
            )
            return
        self._bytes = len(content)
        for answer in _intact(content):
            if all(0 <= token < 2**31 and self._has_token(token) for token in set(answer.tokens)):
                self._answers.add(answer)

    def _append(self, answer: GeneratedAnswer) -> None:
        line = _line(answer)
        try:
            if self._bytes + len(line) > self._max_bytes:
                self._rewrite()
                return
            for folder in (self._folder.parent, self._folder):
                make_folder(folder)
            descriptor = open_private(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(descriptor, "ab") as file:
                self._bytes = file.tell() + file.write(line)
        except OSError as error:
            _log.warning(
                "failed to store an answer on disk, it is lost at the next restart: %s", error
            )

    def _rewrite(self) -> None:
        lines = [_line(answer) for answer in self._answers.entries()]
        self._bytes = write_atomically(self._file, lines)


def _line(answer: GeneratedAnswer) -> bytes:
    record = AnswerRecord(
        opening=answer.opening, tokens=tuple(answer.tokens), content=answer.content
    )
    text = record.to_json().encode()
    # The leading line break separates it from a line that a crash cut short.
    return b"\n%08x%s\n" % (zlib.crc32(text), text)


def _intact(content: bytes) -> Iterator[GeneratedAnswer]:
    """Yield the answers whose lines are intact."""
    for line in content.split(b"\n"):
        checksum, text = line[:_CHECKSUM_CHARS], line[_CHECKSUM_CHARS:]
        if not text or checksum != b"%08x" % zlib.crc32(text):
            continue
        try:
            record = AnswerRecord.model_validate_json(text)
        except ValueError:  # of another version
            continue
        yield GeneratedAnswer(record.opening, record.tokens, record.content)
