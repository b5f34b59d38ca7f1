"""The pages of a PDF for a model that sees: their texts, with pictures where those say more."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Protocol

from pensieve.api.messages.content_blocks import Base64Image, ContentSource, ReadImage, TextBlock
from pensieve.errors import InvalidRequestError
from pensieve.media.outcome import PageSizes, PdfPages, Picture, Refusal
from pensieve.media.picture_size import MAX_RATIO, PictureBounds, fitted_size
from pensieve.models.folder.sight import Sight
from pensieve.prompt.conversation.documents import DAMAGED
from pensieve.worker_threads import run_in_thread

_log = logging.getLogger("pensieve.server")

# Part of each picture's id: other pixels for the same page need another one.
PREPARATION = "1"
# Every page of a shorter PDF is drawn; of a longer one, those with less text than this.
MAX_DRAWN_PAGES = 10
MIN_CHARS = 100


class PageSource(Protocol):
    """`media.decoder.Decoder`."""

    async def page_sizes(self, content: bytes) -> PageSizes | Refusal: ...

    async def page_picture(
        self, content: bytes, index: int, size: tuple[int, int]
    ) -> Picture | Refusal: ...


class PageReader:
    def __init__(self, sight: Sight, source: PageSource) -> None:
        self._bounds = PictureBounds(sight.unit, sight.min_pixels, sight.max_pixels)
        self._source = source

    async def read(self, content: bytes, pages: PdfPages) -> ContentSource:
        """Return the pages of a PDF whose texts are `pages`. Draws none of them yet."""
        sizes = await self._source.page_sizes(content)
        if isinstance(sizes, Refusal):
            sizes = ()
        parts: list[TextBlock | ReadImage] = []
        drawn = 0
        for index, text in enumerate(pages):
            size = self._size(sizes, index) if _is_drawn(text, len(pages)) else None
            drawn += size is not None
            opening = f'<page number="{index + 1}">\n{DAMAGED if text is None else text}'
            if size is None:
                parts.append(_text(f"{opening}\n</page>"))
            else:
                picture = await self._picture(content, index, size)
                parts += [_text(f"{opening}\n" if text else opening), picture, _text("\n</page>")]
        if drawn < len(pages):
            as_text = len(pages) - drawn
            _log.info("%d of %d pages of a PDF are read as text alone", as_text, len(pages))
        return ContentSource.model_construct(type="content", content=_merged(parts))

    def _size(self, sizes: PageSizes, index: int) -> tuple[int, int] | None:
        size = sizes[index] if index < len(sizes) else None
        if size is None or max(size) > MAX_RATIO * min(size):
            return None
        return fitted_size(*size, self._bounds)

    async def _picture(self, content: bytes, index: int, size: tuple[int, int]) -> ReadImage:
        key = f"{PREPARATION} page {index} {size}".encode()
        digest = await run_in_thread(partial(blake2b, content, digest_size=16, key=key))
        return ReadImage(
            type="image",
            source=Base64Image(type="base64", media_type="image/png", data=""),
            picture_id=digest.hexdigest(),
            rows=size[1] // self._bounds.unit,
            columns=size[0] // self._bounds.unit,
            pixels=partial(self._pixels, content, index, size),
        )

    async def _pixels(self, content: bytes, index: int, size: tuple[int, int]) -> bytes:
        result = await self._source.page_picture(content, index, size)
        if isinstance(result, Refusal):
            raise InvalidRequestError(f"Could not process PDF: page {index + 1} cannot be drawn.")
        return result.pixels


PagesOf = Callable[[bytes, PdfPages], Awaitable[ContentSource]]


def _is_drawn(text: str | None, pages: int) -> bool:
    return text is not None and (pages <= MAX_DRAWN_PAGES or len(text) < MIN_CHARS)


def _text(text: str) -> TextBlock:
    return TextBlock(type="text", text=text)


def _merged(parts: Sequence[TextBlock | ReadImage]) -> tuple[TextBlock | ReadImage, ...]:
    """Merge adjacent texts, with line breaks between them."""
    merged: list[TextBlock | ReadImage] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, TextBlock) and isinstance(last, TextBlock):
            merged[-1] = _text(f"{last.text}\n{part.text}")
        else:
            merged.append(part)
    return tuple(merged)
