"""Find the documents of a request whose text is elsewhere, and replace them by it."""

import json

from pensieve.api.messages.content_blocks import DocumentBlock, PdfSource, TranslatedPdf
from pensieve.api.messages.request import CountTokensRequest, parse
from pensieve.prompt.conversation.documents import (
    DAMAGED,
    NO_TEXT,
    pages_text,
    unread_documents,
    with_texts,
)

PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
FILE = {"type": "file", "file_id": "file_1"}
TEXT = {"type": "text", "text": "read"}


def call(*blocks: dict[str, object]) -> CountTokensRequest:
    hello = {"role": "user", "content": "hello"}
    messages = [hello, {"role": "user", "content": blocks}]
    return parse(CountTokensRequest, json.dumps({"model": "m", "messages": messages}).encode())


def document(source: dict[str, object]) -> dict[str, object]:
    return {"type": "document", "source": source, "title": "T", "context": "C"}


def result(*parts: dict[str, object]) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": "t", "content": parts}


def as_text(text: str) -> dict[str, object]:
    return document({"type": "text", "data": text})


def test_documents_in_a_message_and_in_a_tool_result_are_found_with_their_paths() -> None:
    asked = call(TEXT, document(FILE), document(PDF), result(TEXT, document(PDF)), as_text("own"))
    assert asked.has_unread_documents
    found = unread_documents(asked)
    at = "messages.1.content"
    assert [(unread.path, unread.content_path) for unread in found] == [
        (f"{at}.1", f"{at}.1.document.source.file.file_id"),
        (f"{at}.2", f"{at}.2.pdf.source.base64.data"),
        (f"{at}.3.tool_result.content.1", f"{at}.3.tool_result.content.1.pdf.source.base64.data"),
    ]


def test_each_document_becomes_its_text() -> None:
    asked = call(TEXT, document(FILE), result(document(PDF)), as_text("own"))
    texts = {
        "messages.1.content.1": "one",
        "messages.1.content.2.tool_result.content.0": "two",
    }
    expected = call(TEXT, as_text("one"), result(as_text("two")), as_text("own"))
    assert with_texts(asked, texts) == expected
    assert not expected.has_unread_documents


def test_a_pdf_of_another_api_has_the_path_of_its_own_request() -> None:
    pdf = TranslatedPdf(
        type="base64", media_type="application/pdf", data="", path="input.3.content.0.file_data"
    )
    block = DocumentBlock(type="document", source=pdf)
    assert isinstance(block.source, PdfSource)
    turn = call(TEXT).messages[0].model_copy(update={"content": (block,)})
    (unread,) = unread_documents(call(TEXT).model_copy(update={"messages": (turn,)}))
    assert unread.content_path == "input.3.content.0.file_data"


def test_pages_are_numbered_and_those_without_text_are_named() -> None:
    assert pages_text(["one\nline", "", None]) == (
        '<page number="1">\none\nline\n</page>\n'
        f'<page number="2">\n{NO_TEXT}\n</page>\n'
        f'<page number="3">\n{DAMAGED}\n</page>'
    )
