"""Reads the pictures of a request: each becomes its size in tokens, before the prompt is rendered.

A new picture is decoded at once, so that a client learns before the answer that one is damaged; an
old one of a conversation is known by a hash, and decoded only if the engine asks for it.
"""

import logging
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import TypeVar

import anyio

from pensieve.api.messages.content_blocks import (
    Base64Image,
    DocumentBlock,
    FileSource,
    ImageBlock,
    PdfSource,
    ReadImage,
    TextBlock,
    TranslatedImage,
    UrlSource,
)
from pensieve.api.messages.request import Conversation
from pensieve.errors import EngineBusyError, InvalidRequestError, NotFoundError
from pensieve.media.outcome import Picture, Refusal, RefusedError
from pensieve.media.picture_header import PictureHeader, header_of
from pensieve.media.picture_size import MAX_SIDE, PictureBounds, fitted_size
from pensieve.models.folder.sight import Sight
from pensieve.prompt.conversation.pictures import AnyBlock, changed_turns
from pensieve.server.files.store import FileContent
from pensieve.worker_threads import run_in_thread

_log = logging.getLogger("pensieve.server")

# Part of each picture's id: other pixels for the same file need another one.
PREPARATION = "1"
MAX_FILES = 100  # Anthropic's, of images and documents
MAX_BASE64_CHARS = 10 * 1024**2
# Of a coarse view, as OpenAI's `detail: low` asks for: 256 tokens.
SMALL_PIXELS = 262_144
# For all new pictures of a request. What was decoded by then is known the next time.
TIMEOUT_S = 120.0
MAX_KNOWN = 10_000  # 300 bytes each

_UNREADABLE = "Could not process image"
_BY_URL = f"{_UNREADABLE}: pictures by URL are not fetched; send them as base64"

ConversationT = TypeVar("ConversationT", bound=Conversation)
OwnedFile = Callable[[str, str], FileContent]
# Raises `RefusedError`.
ReadHeader = Callable[[bytes], PictureHeader]
Decode = Callable[[bytes, PictureBounds], Awaitable[Picture | Refusal]]


@dataclass(frozen=True, slots=True)
class KnownPicture:
    id: str
    width: int  # as the model sees it
    height: int
    was_decoded: bool = False


@dataclass(frozen=True, slots=True)
class _Unread:
    path: str
    block: ImageBlock
    is_new: bool  # after the last answer

    @property
    def is_optional(self) -> bool:
        return isinstance(self.block, TranslatedImage) and self.block.is_optional

    def refused(self, words: str, field: str = "") -> InvalidRequestError:
        """field: of Anthropic's API, after the block's own path."""
        if isinstance(self.block, TranslatedImage):
            return InvalidRequestError(f"{self.block.path}: {words}")
        return InvalidRequestError(f"{self.path}.image{field}: {words}")


class PictureReader:
    """Owns what is known of the latest pictures. Used on the event loop alone."""

    def __init__(
        self,
        sight: Sight,
        owned_file: OwnedFile,
        decode: Decode,
        max_known: int = MAX_KNOWN,
        read_header: ReadHeader = header_of,
    ) -> None:
        self._bounds = PictureBounds(sight.unit, sight.min_pixels, sight.max_pixels)
        self._owned_file = owned_file
        self._decode = decode
        self._max_known = max_known
        self._read_header = read_header
        self._known: OrderedDict[bytes, KnownPicture] = OrderedDict()

    async def read(self, call: ConversationT, key_name: str, *, decodes: bool) -> ConversationT:
        """Return `call` with its images read; the key owns the files among them.

        decodes: new pictures, not only their headers. Raises `InvalidRequestError`, `NotFoundError`
        for a file, and `EngineBusyError` if decoding takes too long.
        """
        images = await run_in_thread(partial(_unread, call))
        read: dict[str, AnyBlock] = {}
        try:
            with anyio.fail_after(TIMEOUT_S):
                for image in images:
                    read[image.path] = await self._read(image, key_name, decodes=decodes)
        except TimeoutError:
            raise EngineBusyError("The pictures of the request take too long to read.") from None
        turns = await run_in_thread(
            partial(changed_turns, call.messages, lambda block, path: read.get(path, block))
        )
        return call.model_copy(update={"messages": turns})

    async def _read(self, image: _Unread, key_name: str, *, decodes: bool) -> AnyBlock:
        try:
            data = await self._data(image, key_name)
            known = await self._known_as(image, data, decodes=decodes and image.is_new)
        except (InvalidRequestError, NotFoundError) as error:
            if not image.is_optional:
                raise
            # Without the path: later requests may have another, and would differ from here on.
            reason = error.message.removeprefix(image.refused("").message)
            return TextBlock(type="text", text=f"[image that cannot be read: {reason}]")
        return ReadImage(
            type="image",
            source=Base64Image(type="base64", media_type="image/png", data=""),
            cache_control=image.block.cache_control,
            picture_id=known.id,
            rows=known.height // self._bounds.unit,
            columns=known.width // self._bounds.unit,
            pixels=partial(self._pixels, image, data, known),
        )

    async def _data(self, image: _Unread, key_name: str) -> str:
        """Return the picture's file as base64."""
        match image.block.source:
            case Base64Image(data=data):
                if len(data) > MAX_BASE64_CHARS:
                    raise image.refused(
                        "image exceeds 10 MB maximum:"
                        f" {len(data)} bytes > {MAX_BASE64_CHARS} bytes",
                        ".source.base64",
                    )
                return data
            case FileSource(file_id=file_id):
                file = await run_in_thread(partial(self._owned_file, file_id, key_name))
                if len(file.content) * 4 // 3 > MAX_BASE64_CHARS:
                    raise image.refused(_UNREADABLE)
                return await run_in_thread(lambda: b64encode(file.content).decode())
            case UrlSource():
                raise image.refused(_BY_URL)

    async def _known_as(self, image: _Unread, data: str, *, decodes: bool) -> KnownPicture:
        bounds = self._bounds_of(image)
        key = await run_in_thread(partial(_key_of, data, bounds))
        known = self._known.pop(key, None)
        if known is None or (decodes and not known.was_decoded):
            content = await run_in_thread(partial(_content_of, image, data))
            by_header = partial(_by_header, self._read_header, image, content, bounds)
            known = known or await run_in_thread(by_header)
            if decodes:
                await self._decoded(image, content, known)
                known = replace(known, was_decoded=True)
        self._known[key] = known  # the latest is the last
        while len(self._known) > self._max_known:
            self._known.popitem(last=False)
        return known

    async def _pixels(self, image: _Unread, data: str, known: KnownPicture) -> bytes:
        content = await run_in_thread(partial(_content_of, image, data))
        return (await self._decoded(image, content, known)).pixels

    async def _decoded(self, image: _Unread, content: bytes, known: KnownPicture) -> Picture:
        result = await self._decode(content, self._bounds_of(image))
        if isinstance(result, Refusal):
            raise _refusal(image, result)
        if (result.width, result.height) != (known.width, known.height):
            raise image.refused(_UNREADABLE)
        return result

    def _bounds_of(self, image: _Unread) -> PictureBounds:
        bounds = self._bounds
        if not (isinstance(image.block, TranslatedImage) and image.block.is_small):
            return bounds
        return PictureBounds(
            bounds.unit,
            min(bounds.min_pixels, SMALL_PIXELS),
            min(bounds.max_pixels, SMALL_PIXELS),
        )


def _unread(call: Conversation) -> list[_Unread]:
    """Raises `InvalidRequestError` for too many."""
    answers = (at for at, turn in enumerate(call.messages) if turn.role == "assistant")
    last_answer = max(answers, default=-1)
    found: list[_Unread] = []
    documents = 0

    def collect(block: AnyBlock, path: str) -> AnyBlock:
        nonlocal documents
        match block:
            case ImageBlock():
                found.append(_Unread(path, block, int(path.split(".")[1]) > last_answer))
            case DocumentBlock(source=PdfSource()):
                documents += 1
            case _:
                pass
        return block

    changed_turns(call.messages, collect)
    if len(found) + documents > MAX_FILES:
        raise InvalidRequestError(
            f"too many images and documents: {len(found)} + {documents} > {MAX_FILES}"
        )
    return found


def _key_of(data: str, bounds: PictureBounds) -> bytes:
    key = repr(astuple(bounds)).encode()
    return blake2b(data.encode(errors="replace"), digest_size=16, key=key).digest()


def _content_of(image: _Unread, data: str) -> bytes:
    try:
        return b64decode(data, validate=True)
    except ValueError:
        raise image.refused(_UNREADABLE) from None


def _by_header(
    read: ReadHeader, image: _Unread, content: bytes, bounds: PictureBounds
) -> KnownPicture:
    try:
        size = read(content).size
    except RefusedError as error:
        raise _refusal(image, error.refusal) from None
    digest = blake2b(content, digest_size=16, key=f"{PREPARATION} {astuple(bounds)}".encode())
    return KnownPicture(digest.hexdigest(), *fitted_size(*size, bounds))


def _refusal(image: _Unread, refusal: Refusal) -> InvalidRequestError:
    match refusal:
        case Refusal.TOO_LARGE:
            return image.refused(
                f"At least one of the image dimensions exceed max allowed size: {MAX_SIDE} pixels",
                ".source.base64.data",
            )
        case Refusal.NO_LIBRARY:
            _log.error("pictures are refused: the package Pillow does not load")
            return image.refused(
                f"{_UNREADABLE}: this server's library for pictures does not load."
            )
        case _:
            return image.refused(_UNREADABLE)
