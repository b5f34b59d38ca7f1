"""Find the documents of a request whose text is elsewhere, and replace them by it.

Such are uploaded files and PDFs. The server reads them (server/messages/documents.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ContentSource,
    DocumentBlock,
    FileSource,
    MCPToolResultBlock,
    PdfSource,
    ResultPart,
    TextSource,
    ToolResultBlock,
    TranslatedPdf,
)
from pensieve.api.messages.request import Conversation, Turn

NO_TEXT = "[This page has no text, only a picture or nothing. This model reads text alone.]"
DAMAGED = "[This page is damaged.]"

ConversationT = TypeVar("ConversationT", bound=Conversation)
_Change = Callable[[DocumentBlock, str], DocumentBlock]


@dataclass(frozen=True, slots=True)
class UnreadDocument:
    path: str  # of its block
    source: FileSource | PdfSource

    @property
    def is_optional(self) -> bool:
        """Whether a note takes the place of a document that cannot be read."""
        return isinstance(self.source, TranslatedPdf) and self.source.is_optional

    @property
    def content_path(self) -> str:
        """Return the path that errors of its content have; the hosted API writes `pdf`."""
        match self.source:
            case TranslatedPdf(path=path):
                return path
            case PdfSource():
                return f"{self.path}.pdf.source.base64.data"
            case FileSource():
                return f"{self.path}.document.source.file.file_id"


def unread_documents(call: Conversation) -> Sequence[UnreadDocument]:
    found: list[UnreadDocument] = []

    def collect(block: DocumentBlock, path: str) -> DocumentBlock:
        assert isinstance(block.source, FileSource | PdfSource)
        found.append(UnreadDocument(path, block.source))
        return block

    _changed(call, collect)
    return found


def with_texts(call: ConversationT, texts: Mapping[str, str | ContentSource]) -> ConversationT:
    """Return `call` with its unread documents as text, or as parts some of which are pictures.

    texts: by the paths of their blocks.
    """

    def read(block: DocumentBlock, path: str) -> DocumentBlock:
        text = texts[path]
        source = TextSource(type="text", data=text) if isinstance(text, str) else text
        return block.model_copy(update={"source": source})

    return call.model_copy(update={"messages": _changed(call, read)})


def pages_text(pages: Sequence[str | None]) -> str:
    """Return the text of a PDF. pages: their texts, None for a damaged one.

    The same PDF is always the same text, so that a conversation continues from the prefix cache.
    """
    texts = (DAMAGED if text is None else text or NO_TEXT for text in pages)
    return "\n".join(
        f'<page number="{number}">\n{text}\n</page>' for number, text in enumerate(texts, 1)
    )


def _changed(call: Conversation, change: _Change) -> tuple[Turn, ...]:
    """Return the turns with every unread document changed."""
    return tuple(
        turn.model_copy(
            update={"content": _changed_blocks(turn.content, f"messages.{at}.content", change)}
        )
        for at, turn in enumerate(call.messages)
    )


def _changed_blocks(
    blocks: Sequence[ContentBlock | ResultPart], path: str, change: _Change
) -> tuple[ContentBlock | ResultPart, ...]:
    return tuple(_changed_block(block, f"{path}.{at}", change) for at, block in enumerate(blocks))


def _changed_block(
    block: ContentBlock | ResultPart, path: str, change: _Change
) -> ContentBlock | ResultPart:
    match block:
        case DocumentBlock(source=FileSource() | PdfSource()):
            return change(block, path)
        case ToolResultBlock() | MCPToolResultBlock():
            content = _changed_blocks(block.content, f"{path}.{block.type}.content", change)
            return block.model_copy(update={"content": content})
        case _:
            return block
