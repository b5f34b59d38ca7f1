"""Generated answers survive a restart, even with a damaged file."""

import os
import zlib
from pathlib import Path

import pytest

from pensieve.api.messages.message import TextContent, ToolUseContent
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
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
            store.add(answer)
    return [
        GeneratedAnswer(answer.opening, list(answer.tokens), answer.content)
        for answer in answers.entries()
    ]


def only_file(folder: Path) -> Path:
    (file,) = (folder / "prefixes" / "answers").iterdir()
    return file


async def test_added_answers_are_loaded_after_restart(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    await answers_after(tmp_path, model, SAID)
    assert await answers_after(tmp_path, model) == [CALLED, SAID]


async def test_answer_file_is_private(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    file = only_file(tmp_path)
    modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


async def test_files_of_last_used_models_stay(tmp_path: Path, model: Path) -> None:
    for number in range(6):
        (model / "tokenizer.json").write_text(str(number))
        await answers_after(tmp_path, model, SAID)
        for file in (tmp_path / "prefixes" / "answers").iterdir():
            os.utime(file, (stamp := file.stat().st_mtime - 10, stamp))
    are_loaded: list[bool] = []
    for number in (5, 4, 3, 2, 1, 0):
        (model / "tokenizer.json").write_text(str(number))
        are_loaded.append(await answers_after(tmp_path, model) == [SAID])
    assert are_loaded == [True, True, True, True, False, False]


async def test_truncated_line_loses_only_that_answer(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, SAID, CALLED)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for length in range(len(whole) - 60, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert await answers_after(tmp_path, model) == [SAID]
    # The file is read in the background: new answers may come first.
    assert SAID in await answers_after(tmp_path, model, CALLED)
    assert await answers_after(tmp_path, model) == [SAID, CALLED]


async def test_altered_bit_loses_that_answer(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for offset in range(1, len(whole) - 1, 7):
        altered = bytearray(whole)
        altered[offset] ^= 4
        file.write_bytes(altered)
        assert await answers_after(tmp_path, model) == []


async def test_other_tokenizer_has_its_own_file(tmp_path: Path, model: Path) -> None:
    await answers_after(tmp_path, model, CALLED)
    (model / "tokenizer.json").write_text('{"other": true}')
    assert await answers_after(tmp_path, model) == []


async def test_file_over_limit_is_rewritten_with_current_answers(
    tmp_path: Path, model: Path
) -> None:
    """An answer that replaces an earlier one leaves that in the file."""
    answers = GeneratedAnswers()
    store = GeneratedAnswerStore(
        tmp_path / "prefixes" / "answers", model, answers, has_token, max_bytes=2000
    )
    sizes: list[int] = []
    for _ in range(20):
        async with store.open():
            store.add(CALLED)
        sizes.append(only_file(tmp_path).stat().st_size)
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
    file = only_file(tmp_path)
    for record in file.read_bytes().splitlines():
        text = record[8:].replace(b"70000", str(token).encode())
        forged = b"\n%08x%s\n" % (zlib.crc32(text), text)
        file.write_bytes(file.read_bytes() + forged * bool(text))
    await answers_after(tmp_path, model, SAID)
    assert await answers_after(tmp_path, model) == [CALLED, SAID]
