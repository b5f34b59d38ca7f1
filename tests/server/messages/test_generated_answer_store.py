"""Generated answers survive a restart, whatever happened to others of them on disk."""

import zlib
from pathlib import Path

import pytest

from pensieve.api.messages.message import TextContent, ToolUseContent
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.server.database import Database
from pensieve.server.messages.generated_answer_store import GeneratedAnswerStore

pytestmark = pytest.mark.anyio

CALLED = GeneratedAnswer(
    "<|im_start|>assistant\n",
    [7, 70_000, 0],
    (ToolUseContent(id="toolu_1", name="ü", input={"b": 1, "a": "\u2028\n"}),),
)
VOCABULARY_SIZE = 100_000
SAID = GeneratedAnswer("", [1], (TextContent(text="Guten Tag 🙂"),))


def has_token(token_id: int) -> bool:
    return token_id < VOCABULARY_SIZE


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    return folder


async def answers_after(folder: Path, model: Path, *more: GeneratedAnswer) -> list[GeneratedAnswer]:
    """Return what a server that adds `more` holds at its end."""
    answers = GeneratedAnswers()
    store = GeneratedAnswerStore(folder / "prefixes" / "answers", model, answers, has_token)
    async with store.open():
        for answer in more:
            answers.add(answer)
    return [
        GeneratedAnswer(answer.opening, list(answer.tokens), answer.content)
        for answer in answers.entries()
    ]


def rows(folder: Path) -> Database:
    return Database(folder / "prefixes" / "answers", "")


def records(folder: Path) -> list[tuple[int, bytes]]:
    with rows(folder).read() as connection:
        return connection.execute("SELECT number, record FROM answers ORDER BY number").fetchall()


async def test_added_answers_are_loaded_after_restart(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    await answers_after(tmp_path, model, SAID)
    assert await answers_after(tmp_path, model) == [CALLED, SAID]


async def test_answer_file_is_private(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    file = tmp_path / "prefixes" / "answers" / "answers.db"
    modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


async def test_answers_of_last_used_tokenizers_stay(tmp_path: Path, model: Path) -> None:
    for number in (0, 1, 2, 3, 4, 5, 1):
        (model / "tokenizer.json").write_text(str(number))
        await answers_after(tmp_path, model, SAID)
    are_loaded: list[bool] = []
    for number in (5, 4, 3, 2, 1, 0):
        (model / "tokenizer.json").write_text(str(number))
        are_loaded.append(SAID in await answers_after(tmp_path, model))
    assert are_loaded == [True, True, True, False, True, False]


async def test_altered_answer_is_lost_alone(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED, SAID)
    ((number, whole), _) = records(tmp_path)
    for offset in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[offset] ^= 4
        with rows(tmp_path).write() as connection:
            connection.execute("UPDATE answers SET record = ? WHERE number = ?", (altered, number))
        assert await answers_after(tmp_path, model) == [SAID]


@pytest.mark.parametrize("damage", [b"", b"not a database", bytes(8192)])
async def test_damaged_database_loses_the_answers_and_nothing_else(
    tmp_path: Path, model: Path, damage: bytes
) -> None:
    await answers_after(tmp_path, model, CALLED)
    (tmp_path / "prefixes" / "answers" / "answers.db").write_bytes(damage)
    assert await answers_after(tmp_path, model, SAID) == [SAID]
    assert await answers_after(tmp_path, model) == [SAID]


async def test_other_tokenizer_has_its_own_answers(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    (model / "tokenizer.json").write_text('{"other": true}')
    assert await answers_after(tmp_path, model) == []


async def test_answers_over_limit_are_replaced_by_current_ones(tmp_path: Path, model: Path) -> None:
    """An answer that replaces an earlier one leaves that in the database."""
    answers = GeneratedAnswers()
    folder = tmp_path / "prefixes" / "answers"
    store = GeneratedAnswerStore(folder, model, answers, has_token, max_bytes=2000)
    sizes: list[int] = []
    for _ in range(20):
        async with store.open():
            answers.add(CALLED)
        sizes.append(sum(len(record) for _, record in records(tmp_path)))
    assert max(sizes) <= 2000
    assert sizes != sorted(sizes)
    assert await answers_after(tmp_path, model) == [CALLED]


async def test_unwritable_folder_loses_only_the_file(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "prefixes").write_text("in the way")
    assert await answers_after(tmp_path, model, CALLED) == [CALLED]
    assert "failed to store an answer on disk" in caplog.text


@pytest.mark.parametrize("token", [-1, VOCABULARY_SIZE, 2**31, 2**32, 10**30])
async def test_answer_with_unknown_tokens_is_skipped_alone(
    tmp_path: Path, model: Path, token: int
) -> None:
    """Its checksum is right: another program wrote it, or this one with another tokenizer."""
    await answers_after(tmp_path, model, CALLED)
    ((_, record),) = records(tmp_path)
    forged = record.replace(b"70000", str(token).encode())
    with rows(tmp_path).write() as connection:
        connection.execute(
            "INSERT INTO answers (tokenizer, checksum, record) SELECT tokenizer, ?, ? FROM answers",
            (zlib.crc32(forged), forged),
        )
    await answers_after(tmp_path, model, SAID)
    assert await answers_after(tmp_path, model) == [CALLED, SAID]
