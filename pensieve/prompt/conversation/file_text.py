"""Replace documents that refer to an uploaded file by the file's text.

The caller supplies the texts. All files of one request together are limited to the size of a
request body: a few bytes could refer to a large file many times.
"""

from collections.abc import Callable
from typing import TypeVar

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    DocumentBlock,
    FileSource,
    MCPToolResultBlock,
    ResultPart,
    TextSource,
    ToolResultBlock,
)
from pensieve.api.messages.request import MAX_BODY_BYTES, Conversation, Turn
from pensieve.errors import RequestTooLargeError

FileText = Callable[[str], str]

ConversationT = TypeVar("ConversationT", bound=Conversation)


def with_file_texts(call: ConversationT, file_text: FileText) -> ConversationT:
    """Return `call` with files as text.

    Raises `RequestTooLargeError`, and what `file_text` raises.
    """
    reader = _FileReader(file_text)
    return call.model_copy(update={"messages": tuple(map(reader.turn, call.messages))})


class _FileReader:
    """Owns the number of characters read for one request."""

    def __init__(self, file_text: FileText) -> None:
        self._file_text = file_text
        self._chars = 0

    def turn(self, turn: Turn) -> Turn:
        return turn.model_copy(update={"content": tuple(map(self._block, turn.content))})

    def _block(self, block: ContentBlock | ResultPart) -> ContentBlock | ResultPart:
        match block:
            case DocumentBlock(source=FileSource(file_id=file_id)):
                source = TextSource(type="text", data=self._read(file_id))
                return block.model_copy(update={"source": source})
            case ToolResultBlock() | MCPToolResultBlock():
                return block.model_copy(update={"content": tuple(map(self._block, block.content))})
            case _:
                return block

    def _read(self, file_id: str) -> str:
        text = self._file_text(file_id)
        self._chars += len(text)
        if self._chars > MAX_BODY_BYTES:
            raise RequestTooLargeError("Request exceeds the maximum size")
        return text
