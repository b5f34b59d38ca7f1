"""Files and PDFs in requests: their texts, limits, and errors; hostile ones through the server.

`PENSIEVE_FILES=200 pytest tests/server/messages/test_documents.py` sends more of these.
"""

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    DocumentBlock,
    FileSource,
    TextSource,
    TranslatedPdf,
)
from pensieve.api.messages.request import MAX_BODY_BYTES, CountTokensRequest, Turn
from pensieve.errors import InvalidRequestError, NotFoundError, RequestTooLargeError
from pensieve.media.outcome import PdfPages, Refusal
from pensieve.paths import under_home
from pensieve.server.files.store import FileContent
from pensieve.server.messages.documents import MAX_PDFS, DocumentReader
from pensieve.settings.resolve import Settings
from tests.clients.serving import prompts
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says
from tests.support.pdfs import base64_of, document_of, locked_pdf, pdf_of

FILES = int(os.environ.get("PENSIEVE_FILES", "24"))
CONTENT = b"the PDF"
AT = "messages.0.content.0.pdf.source.base64.data"
STORED = {
    "file_text": FileContent("text/plain", "\ufeffé\n".encode()),
    "file_pdf": FileContent("application/pdf", CONTENT),
    "file_large": FileContent("text/plain", b"x" * (MAX_BODY_BYTES // 2)),
}


def owned_file(file_id: str, key_name: str) -> FileContent:
    if file_id not in STORED or key_name != "key":
        raise NotFoundError(f"File not found: {file_id}")
    return STORED[file_id]


def reader_of(result: PdfPages | Refusal) -> DocumentReader:
    async def pdf_pages(content: bytes) -> PdfPages | Refusal:
        assert content == CONTENT
        return result

    return DocumentReader(owned_file, pdf_pages)


def call(*blocks: Mapping[str, object] | ContentBlock) -> CountTokensRequest:
    turn = Turn.model_validate({"role": "user", "content": blocks})
    return CountTokensRequest(model="m", messages=(turn,))


def file(file_id: str) -> DocumentBlock:
    return DocumentBlock(type="document", source=FileSource(type="file", file_id=file_id))


async def text_of(result: PdfPages | Refusal, block: Mapping[str, object] | ContentBlock) -> str:
    read = await reader_of(result).read(call(block), "key")
    (found,) = read.messages[0].content
    assert isinstance(found, DocumentBlock)
    assert isinstance(found.source, TextSource)
    return found.source.data


async def refusal_of(result: PdfPages | Refusal, *blocks: Mapping[str, object]) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        await reader_of(result).read(call(*blocks), "key")
    return caught.value.message


async def test_pdfs_and_files_become_their_texts() -> None:
    page = '<page number="1">\none\n</page>'
    assert await text_of(("one",), document_of(CONTENT)) == page
    assert await text_of(("one",), file("file_pdf")) == page
    assert await text_of(("one",), file("file_text")) == "é\n"


async def test_a_file_that_is_unknown_or_of_another_key_is_not_found() -> None:
    for file_id, key_name in [("file_none", "key"), ("file_text", "other")]:
        with pytest.raises(NotFoundError, match=f"File not found: {file_id}"):
            await reader_of(()).read(call(file(file_id)), key_name)


async def test_repeated_references_to_a_large_file_exceed_the_request_limit() -> None:
    twice = call(file("file_large"), file("file_large"))
    await reader_of(()).read(twice, "key")
    with pytest.raises(RequestTooLargeError):
        await reader_of(()).read(call(*twice.messages[0].content, file("file_text")), "key")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Refusal.INVALID, "The PDF specified was not valid."),
        (Refusal.ENCRYPTED, "The PDF specified is password protected."),
        (Refusal.TOO_MANY_PAGES, "A maximum of 100 PDF pages may be provided."),
        (Refusal.TOO_COSTLY, "Could not process PDF: reading it takes too much time or memory."),
        (
            Refusal.TOO_LARGE,  # of pictures
            "Could not process PDF: reading it takes too much time or memory.",
        ),
        (
            Refusal.NO_LIBRARY,
            "Could not process PDF: this server's library for PDFs does not load.",
        ),
        (
            ("", None),
            "Could not process PDF: none of its 2 pages has text. Model 'm' reads text alone;"
            " a scan needs a model with vision.",
        ),
    ],
)
async def test_a_pdf_that_is_not_read_is_refused_by_its_path(
    result: PdfPages | Refusal, message: str
) -> None:
    assert await refusal_of(result, document_of(CONTENT)) == f"{AT}: {message}"
    stored = file("file_pdf").model_dump()
    at = "messages.0.content.0.document.source.file.file_id"
    assert await refusal_of(result, stored) == f"{at}: {message}"


async def test_data_that_is_no_base64_is_no_pdf() -> None:
    for data in ("é", "JVBERi0", "JV BE"):
        block = document_of(b"")
        block["source"] = {**block["source"], "data": data}
        assert await refusal_of((), block) == f"{AT}: The PDF specified was not valid."


async def test_a_pdf_with_too_much_text_is_a_request_too_large() -> None:
    with pytest.raises(RequestTooLargeError):
        await reader_of(Refusal.TOO_LONG).read(call(document_of(CONTENT)), "key")


async def test_more_pdfs_than_the_limit_are_refused() -> None:
    blocks = [document_of(CONTENT)] * (MAX_PDFS + 1)
    assert await refusal_of(("x",), *blocks) == "too many images and documents: 0 + 101 > 100"
    await reader_of(("x",)).read(call(*blocks[1:]), "key")


async def test_in_a_result_of_openais_apis_the_error_takes_the_place_of_the_pdf() -> None:
    def block(*, is_optional: bool) -> DocumentBlock:
        pdf = TranslatedPdf(
            type="base64",
            media_type="application/pdf",
            data=base64_of(CONTENT),
            path="messages.3.content.0.file.file_data",
            is_optional=is_optional,
        )
        return DocumentBlock(type="document", source=pdf)

    assert await text_of(Refusal.INVALID, block(is_optional=True)) == (
        "[file that cannot be read: The PDF specified was not valid.]"
    )
    with pytest.raises(InvalidRequestError) as caught:
        await text_of(Refusal.INVALID, block(is_optional=False))
    assert caught.value.message == (
        "messages.3.content.0.file.file_data: The PDF specified was not valid."
    )


# Through the server.


def asked(*blocks: Mapping[str, object]) -> dict[str, object]:
    return CALL | {"messages": [{"role": "user", "content": blocks}]}


async def test_a_pdf_is_text_in_the_prompt_and_counts_as_such() -> None:
    engine = ScriptedEngine([says("ok")])
    content = pdf_of("The code word is swordfish.", "More.")
    body = asked(document_of(content, title="Facts"), {"type": "text", "text": "The word?"})
    async with in_memory(app_of(engine)) as client:
        answer = (await client.post("/v1/messages", json=body)).json()
        again = (await client.post("/v1/messages", json=body)).json()
        counting = {name: body[name] for name in ("model", "messages")}
        counted = (await client.post("/v1/messages/count_tokens", json=counting)).json()
    first, second = prompts(engine)
    assert (
        '<document title="Facts">\n<page number="1">\nThe code word is swordfish.\n</page>\n'
        '<page number="2">\nMore.\n</page>\n</document>'
    ) in first
    assert first == second
    assert answer["usage"] == again["usage"]
    assert counted["input_tokens"] == answer["usage"]["input_tokens"]


async def test_a_pdf_in_a_tool_result_is_text_in_the_prompt() -> None:
    engine = ScriptedEngine([says("ok")])
    use = {"type": "tool_use", "id": "a", "name": "Read", "input": {}}
    content = [{"type": "text", "text": "PDF file read"}, document_of(pdf_of("inside"))]
    result = {"type": "tool_result", "tool_use_id": "a", "content": content}
    messages = [
        {"role": "user", "content": "read"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    async with in_memory(app_of(engine)) as client:
        answer = await client.post("/v1/messages", json=CALL | {"messages": messages})
    assert answer.status_code == 200
    assert 'PDF file read\n<document>\n<page number="1">\ninside\n</page>' in prompts(engine)[0]


async def test_an_uploaded_pdf_is_text_in_the_prompt(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("ok")])
    settings = Settings(paths=under_home(tmp_path), device="cpu")
    async with in_memory(app_of(engine, settings=settings)) as client:
        upload = {"file": ("a.pdf", pdf_of("stored"), "application/pdf")}
        stored = (await client.post("/v1/files", files=upload)).json()
        source = {"type": "file", "file_id": stored["id"]}
        body = asked({"type": "document", "source": source})
        assert (await client.post("/v1/messages", json=body)).status_code == 200
    assert stored["mime_type"] == "application/pdf"
    assert '<page number="1">\nstored\n</page>' in prompts(engine)[0]


async def test_a_locked_pdf_and_a_scan_are_errors_from_which_clients_recover() -> None:
    async with in_memory(app_of(ScriptedEngine([says("no")]))) as client:
        for content, message in [
            (locked_pdf(), "The PDF specified is password protected."),
            (pdf_of("", ""), "Could not process PDF: none of its 2 pages has text."),
        ]:
            answer = await client.post("/v1/messages", json=asked(document_of(content)))
            error = answer.json()["error"]
            assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
            assert error["message"].startswith(f"{AT}: ")
            assert message in error["message"]


Mutate = Callable[[bytes, random.Random], bytes]


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def repeated(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    piece = content[start : start + chance.randint(1, 400)]
    return content[:start] + piece * chance.randint(2, 400) + content[start:]


def renumbered(content: bytes, chance: random.Random) -> bytes:
    """Change a number: lengths, counts, positions and references."""
    places = [at for at, byte in enumerate(content) if byte in b"0123456789"]
    at = chance.choice(places)
    number = chance.choice([b"0", b"-1", b"1", b"2", b"4", b"99999", b"2147483647", b"1e308"])
    return content[:at] + number + content[at + 1 :]


def hostile(number: int) -> bytes:
    chance = random.Random(number)
    is_compressed = bool(number % 2)
    content = pdf_of("One page (of text)", "", "and another", is_compressed=is_compressed)
    mutations: list[Mutate] = [flipped, truncated, repeated, renumbered]
    for _ in range(1 + number % 3):
        content = mutations[chance.randrange(4)](content, chance)
    return content


async def test_hostile_files_are_read_or_refused_and_the_server_answers_on() -> None:
    statuses: dict[int, int] = {}
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        for number in range(FILES):
            body = asked(document_of(hostile(number)))
            status = (await client.post("/v1/messages", json=body)).status_code
            statuses[status] = statuses.get(status, 0) + 1
        body = asked(document_of(pdf_of("alive")))
        assert (await client.post("/v1/messages", json=body)).status_code == 200
    assert statuses.keys() <= {200, 400, 413}
    assert statuses.keys() >= {200, 400}
