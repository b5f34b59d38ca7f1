"""Find the pictures of a conversation, and mark their places in its text.

The server reads pictures before anything else (server/messages/pictures.py). Until its end the
prompt is text, in which a mark represents a picture; no client can write one, as it depends on a
secret of this process.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ContentSource,
    DocumentBlock,
    DocumentPart,
    MCPToolResultBlock,
    ReadImage,
    ResultPart,
    ToolResultBlock,
)
from pensieve.api.messages.request import Turn

AnyBlock = ContentBlock | ResultPart | DocumentPart
# Gets a block and its path in the request; returns what takes its place.
Change = Callable[[AnyBlock, str], AnyBlock]

_SECRET = secrets.token_bytes(32)
MARK = re.compile(r"\[picture:[0-9a-f]{32}\]")


def mark_of(picture_id: str) -> str:
    digest = blake2b(picture_id.encode(), key=_SECRET, digest_size=16)
    return f"[picture:{digest.hexdigest()}]"


def joined(texts: Iterable[str]) -> str:
    """Join parts of a message by line breaks, with none next to a picture.

    Templates write none there.
    """
    parts: list[str] = []
    was_mark = True  # nothing precedes the first one
    for text in texts:
        is_mark = MARK.fullmatch(text) is not None
        parts.append(text if is_mark or was_mark else f"\n{text}")
        was_mark = is_mark
    return "".join(parts)


def pictures_of(turns: Iterable[Turn]) -> Iterator[ReadImage]:
    """Yield the pictures in their order."""
    blocks = (block for turn in turns for block in _inner(turn.content))
    return (block for block in blocks if isinstance(block, ReadImage))


def changed_turns(turns: Sequence[Turn], change: Change) -> tuple[Turn, ...]:
    """Return the turns with `change` applied to every block, also in results and documents."""
    return tuple(
        turn.model_copy(
            update={"content": _changed_all(turn.content, f"messages.{at}.content", change)}
        )
        for at, turn in enumerate(turns)
    )


def _inner(blocks: Iterable[AnyBlock]) -> Iterator[AnyBlock]:
    for block in blocks:
        yield block
        match block:
            case ToolResultBlock() | MCPToolResultBlock():
                yield from _inner(block.content)
            case DocumentBlock(source=ContentSource(content=content)):
                yield from _inner(content)
            case _:
                pass


def _changed_all(blocks: Iterable[AnyBlock], path: str, change: Change) -> tuple[AnyBlock, ...]:
    return tuple(_changed(block, f"{path}.{at}", change) for at, block in enumerate(blocks))


def _changed(block: AnyBlock, path: str, change: Change) -> AnyBlock:
    match block:
        case ToolResultBlock() | MCPToolResultBlock():
            content = _changed_all(block.content, f"{path}.{block.type}.content", change)
            return block.model_copy(update={"content": content})
        case DocumentBlock(source=ContentSource() as source):
            content = _changed_all(source.content, f"{path}.document.source.content", change)
            return block.model_copy(
                update={"source": source.model_copy(update={"content": content})}
            )
        case _:
            return change(block, path)
