"""Answers as generated, over a restart: what was kept is there again, whatever happened to the file."""

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


async def kept_after(folder: Path, model: Path, *more: GeneratedAnswer) -> list[GeneratedAnswer]:
    """What a server that starts, and remembers `more`, knows when it ends."""
    words = GeneratedAnswers()
    log = GeneratedAnswerStore(folder / "prefixes" / "answers", model, words, has_token)
    async with log.open():
        for spoken in more:
            log.remember(spoken)
    return [
        GeneratedAnswer(spoken.opening, list(spoken.tokens), spoken.content)
        for spoken in words.kept()
    ]


def only_file(folder: Path) -> Path:
    (file,) = (folder / "prefixes" / "answers").iterdir()
    return file


async def test_what_was_remembered_is_known_after_a_restart(tmp_path: Path, model: Path) -> None:
    await kept_after(tmp_path, model, CALLED)
    await kept_after(tmp_path, model, SAID)
    assert await kept_after(tmp_path, model) == [CALLED, SAID]


async def test_nobody_else_may_read_it(tmp_path: Path, model: Path) -> None:
    await kept_after(tmp_path, model, CALLED)
    file = only_file(tmp_path)
    modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


async def test_of_other_models_the_last_used_stay(tmp_path: Path, model: Path) -> None:
    for number in range(6):
        (model / "tokenizer.json").write_text(str(number))
        await kept_after(tmp_path, model, SAID)
        for file in (tmp_path / "prefixes" / "answers").iterdir():
            os.utime(file, (stamp := file.stat().st_mtime - 10, stamp))
    known: list[bool] = []
    for number in (5, 4, 3, 2, 1, 0):
        (model / "tokenizer.json").write_text(str(number))
        known.append(await kept_after(tmp_path, model) == [SAID])
    assert known == [True, True, True, True, False, False]


async def test_a_line_that_is_cut_short_costs_that_answer_and_no_other(
    tmp_path: Path, model: Path
) -> None:
    await kept_after(tmp_path, model, SAID, CALLED)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for length in range(len(whole) - 60, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert await kept_after(tmp_path, model) == [SAID]
    # The file is read in the background: what is new may come before it.
    assert SAID in await kept_after(tmp_path, model, CALLED)
    assert await kept_after(tmp_path, model) == [SAID, CALLED]


async def test_an_altered_bit_is_a_miss(tmp_path: Path, model: Path) -> None:
    await kept_after(tmp_path, model, CALLED)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for place in range(1, len(whole) - 1, 7):
        altered = bytearray(whole)
        altered[place] ^= 4
        file.write_bytes(altered)
        assert await kept_after(tmp_path, model) == []


async def test_another_tokenizer_does_not_read_these_tokens(tmp_path: Path, model: Path) -> None:
    await kept_after(tmp_path, model, CALLED)
    (model / "tokenizer.json").write_text('{"other": true}')
    assert await kept_after(tmp_path, model) == []


async def test_a_file_that_has_grown_is_written_anew_with_what_is_known(
    tmp_path: Path, model: Path
) -> None:
    """An answer that takes the place of an earlier one leaves that in the file."""
    words = GeneratedAnswers()
    log = GeneratedAnswerStore(
        tmp_path / "prefixes" / "answers", model, words, has_token, max_bytes=2000
    )
    sizes: list[int] = []
    for _ in range(20):
        async with log.open():
            log.remember(CALLED)
        sizes.append(only_file(tmp_path).stat().st_size)
    assert max(sizes) <= 2000
    assert sizes != sorted(sizes)
    assert await kept_after(tmp_path, model) == [CALLED]


async def test_a_folder_that_cannot_be_written_costs_nothing_but_the_file(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "prefixes").write_text("in the way")
    assert await kept_after(tmp_path, model, CALLED) == [CALLED]
    assert "an answer is not kept on disk" in caplog.text


@pytest.mark.parametrize("token", [-1, VOCABULARY_SIZE, 2**31, 2**32, 10**30])
async def test_an_answer_of_tokens_that_the_tokenizer_does_not_have_costs_no_other(
    tmp_path: Path, model: Path, token: int
) -> None:
    """The line's checksum is right: another program wrote it, or this one with another tokenizer."""
    await kept_after(tmp_path, model, CALLED)
    file = only_file(tmp_path)
    for record in file.read_bytes().splitlines():
        text = record[8:].replace(b"70000", str(token).encode())
        forged = b"\n%08x%s\n" % (zlib.crc32(text), text)
        file.write_bytes(file.read_bytes() + forged * bool(text))
    await kept_after(tmp_path, model, SAID)
    assert await kept_after(tmp_path, model) == [CALLED, SAID]
