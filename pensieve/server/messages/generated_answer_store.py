"""Stores answers as generated on disk, so that prompts after a restart still match the prefix
cache.

Token ids are valid for one tokenizer alone, so each answer carries its tokenizer; answers of
tokenizers not used lately are removed. SQLite has no checksums, so each answer also has one: an
altered answer is skipped. One thread writes in the background; on a full disk answers are dropped
and nothing else fails.
"""

import logging
import zlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread

from pensieve.api.messages.message import AnswerRecord
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.server.database import Connection, Database

_log = logging.getLogger("pensieve.server")

# Twice the size of all answers in memory. More are replaced by those in memory.
MAX_BYTES = 64_000_000
# How many tokenizers' answers stay: those of the current one, and those added to last.
TOKENIZERS = 4

_SCHEMA = """
CREATE TABLE answers (
    number INTEGER PRIMARY KEY,
    tokenizer TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX answers_of_tokenizer ON answers (tokenizer);
"""
_ADD = "INSERT INTO answers (tokenizer, checksum, record) VALUES (?, ?, ?)"
_REMOVE_OLD = """
DELETE FROM answers WHERE tokenizer NOT IN (
    SELECT tokenizer FROM answers GROUP BY tokenizer
    ORDER BY tokenizer = ? DESC, max(number) DESC LIMIT ?
)
"""


class GeneratedAnswerStore:
    """Owns the database while it is `open`, and the thread that writes it.

    The database is a copy of `answers`.
    """

    def __init__(
        self,
        folder: Path,
        model_folder: Path,
        answers: GeneratedAnswers,
        has_token: Callable[[int], bool],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._database = Database(folder, _SCHEMA, is_durable=False)
        self._model_folder = model_folder
        self._answers = answers
        self._has_token = has_token
        self._max_bytes = max_bytes
        self._bytes = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Read the answers in the background, then append those that are generated."""
        writer = ThreadPoolExecutor(1, thread_name_prefix="answers")
        writer.submit(self._read)
        self._answers.on_added = partial(writer.submit, self._append)
        try:
            yield
        finally:
            self._answers.on_added = None
            writer.submit(self._database.close)
            await anyio.to_thread.run_sync(writer.shutdown)

    # The following run on the writer's thread.

    @cached_property
    def _tokenizer(self) -> str:
        digest = blake2b(digest_size=16)
        for pattern in ("tokenizer*", "chat_template*"):
            for file in sorted(self._model_folder.glob(pattern)):
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def _read(self) -> None:
        query = "SELECT checksum, record FROM answers WHERE tokenizer = ? ORDER BY number"
        try:
            with self._database.read() as connection:
                for checksum, record in connection.execute(query, (self._tokenizer,)):
                    self._bytes += len(record)
                    if zlib.crc32(record) == checksum:
                        self._add_stored(record)
        except OSError as error:
            _log.warning(
                "failed to read stored answers, old conversations may miss the prefix cache: %s",
                error,
            )

    def _add_stored(self, text: bytes) -> None:
        try:
            record = AnswerRecord.model_validate_json(text)
        except ValueError:  # of another version
            return
        if all(0 <= token < 2**31 and self._has_token(token) for token in set(record.tokens)):
            answer = GeneratedAnswer(record.opening, record.tokens, record.content)
            self._answers.add(answer, is_stored=True)

    def _append(self, answer: GeneratedAnswer) -> None:
        row = self._row(answer)
        try:
            with self._database.write() as connection:
                if self._bytes + len(row[-1]) <= self._max_bytes:
                    connection.execute(_ADD, row)
                    self._bytes += len(row[-1])
                else:
                    self._rewrite(connection)
                connection.execute(_REMOVE_OLD, (self._tokenizer, TOKENIZERS))
        except OSError as error:
            _log.warning(
                "failed to store an answer on disk, it is lost at the next restart: %s", error
            )

    def _rewrite(self, connection: Connection) -> None:
        rows = [self._row(answer) for answer in self._answers.entries()]
        connection.execute("DELETE FROM answers WHERE tokenizer = ?", (self._tokenizer,))
        connection.executemany(_ADD, rows)
        self._bytes = sum(len(record) for *_, record in rows)

    def _row(self, answer: GeneratedAnswer) -> tuple[str, int, bytes]:
        record = AnswerRecord(
            opening=answer.opening, tokens=tuple(answer.tokens), content=answer.content
        )
        text = record.to_json().encode()
        return self._tokenizer, zlib.crc32(text), text
