"""Replace documents that refer to files by their texts."""

import json

import pytest

from pensieve.api.messages.request import MAX_BODY_BYTES, CountTokensRequest, parse
from pensieve.errors import NotFoundError, RequestTooLargeError
from pensieve.prompt.conversation.file_text import with_file_texts

FILES = {"file_1": "one\n", "file_2": "two", "large": "x" * (MAX_BODY_BYTES // 2)}


def file_text(file_id: str) -> str:
    if file_id not in FILES:
        raise NotFoundError(f"File not found: {file_id}")
    return FILES[file_id]


def call(*blocks: dict[str, object]) -> CountTokensRequest:
    messages = [{"role": "user", "content": blocks}]
    return parse(CountTokensRequest, json.dumps({"model": "m", "messages": messages}).encode())


def document(file_id: str) -> dict[str, object]:
    return {
        "type": "document",
        "source": {"type": "file", "file_id": file_id},
        "title": "T",
        "context": "C",
    }


def as_text(text: str) -> dict[str, object]:
    return document("") | {"source": {"type": "text", "data": text}}


def test_file_reference_becomes_the_files_text() -> None:
    blocks = [{"type": "text", "text": "read"}, document("file_1"), document("file_2")]
    expected = [blocks[0], as_text("one\n"), as_text("two")]
    assert with_file_texts(call(*blocks), file_text) == call(*expected)


def test_a_file_in_a_tool_result_is_read_too() -> None:
    def result(part: dict[str, object]) -> dict[str, object]:
        return {"type": "tool_result", "tool_use_id": "t", "content": [part]}

    read = call(result(document("file_1")))
    assert read.names_files
    found = with_file_texts(read, file_text)
    assert found == call(result(as_text("one\n")))


def test_unknown_file_raises() -> None:
    with pytest.raises(NotFoundError, match="File not found: file_3"):
        with_file_texts(call(document("file_3")), file_text)


def test_repeated_references_to_a_large_file_exceed_the_request_limit() -> None:
    with_file_texts(call(document("large"), document("large")), file_text)
    with pytest.raises(RequestTooLargeError):
        with_file_texts(call(document("large"), document("large"), document("file_2")), file_text)
