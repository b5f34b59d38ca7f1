"""What is known of a picture: it is decoded once, and then found by a hash of its base64."""

from collections.abc import Mapping

import pytest

from pensieve.api.messages.content_blocks import ReadImage, TextBlock, ToolResultBlock
from pensieve.api.messages.request import CountTokensRequest
from pensieve.errors import InvalidRequestError, NotFoundError
from pensieve.media.outcome import Picture, Refusal
from pensieve.media.picture_header import PictureHeader, header_of
from pensieve.media.picture_size import PictureBounds, fitted_size
from pensieve.prompt.conversation.pictures import pictures_of
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.template.pictures import PictureMarks
from pensieve.server.files.store import FileContent
from pensieve.server.messages.pictures import PictureReader
from tests.support.fakes import ByteTokenizer
from tests.support.pictures import END, PAD, SIGHT, START, image_of, picture

pytestmark = pytest.mark.anyio
RED = image_of(picture())


class Decoder:
    """Counts the pictures that it decodes."""

    def __init__(self, result: Refusal | None = None, size: tuple[int, int] = (128, 64)) -> None:
        self.result = result
        self.size = size
        self.calls = 0

    async def __call__(self, content: bytes, bounds: PictureBounds) -> Picture | Refusal:
        self.calls += 1
        width, height = fitted_size(*self.size, bounds)
        return self.result or Picture(width, height, bytes(width * height * 3))


def owned_file(file_id: str, key_name: str) -> FileContent:
    raise NotFoundError(f"File not found: {file_id}")


def reader_of(decoder: Decoder) -> PictureReader:
    return PictureReader(SIGHT, owned_file, decoder)


def call(*blocks: object, later: bool = False) -> CountTokensRequest:
    turns: list[Mapping[str, object]] = [{"role": "user", "content": blocks}]
    if later:
        turns += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "more"}]
    return CountTokensRequest.model_validate({"model": "m", "messages": turns})


async def read(reader: PictureReader, request: CountTokensRequest, *, decodes: bool) -> ReadImage:
    read_call = await reader.read(request, "", decodes=decodes)
    (one,) = pictures_of(read_call.messages)
    return one


async def test_a_picture_is_decoded_when_it_is_new_and_asked_about() -> None:
    decoder = Decoder()
    opened: list[int] = []

    def read_header(content: bytes) -> PictureHeader:
        opened.append(len(content))
        return header_of(content)

    reader = PictureReader(SIGHT, owned_file, decoder, read_header=read_header)
    counted = await read(reader, call(RED), decodes=False)
    assert decoder.calls == 0
    first = await read(reader, call(RED), decodes=True)
    assert decoder.calls == 1
    again = await read(reader, call(RED), decodes=True)
    old = await read(reader, call(RED, later=True), decodes=True)
    assert (decoder.calls, len(opened)) == (1, 1)
    assert {one.picture_id for one in (counted, first, again, old)} == {first.picture_id}
    assert len(await old.pixels()) == 128 * 64 * 3
    assert decoder.calls == 2


async def test_an_old_picture_is_not_decoded_after_a_restart() -> None:
    decoder = Decoder()
    await read(reader_of(decoder), call(RED, later=True), decodes=True)
    assert decoder.calls == 0


async def test_the_latest_pictures_are_known() -> None:
    decoder = Decoder()
    reader = PictureReader(SIGHT, owned_file, decoder, max_known=2)
    blocks = [image_of(picture(colour=colour)) for colour in ("red", "green", "blue")]
    for block in (*blocks, blocks[2], blocks[1]):
        await read(reader, call(block), decodes=True)
    assert decoder.calls == 3
    await read(reader, call(blocks[0]), decodes=True)
    assert decoder.calls == 4


@pytest.mark.parametrize(
    ("decoder", "field", "words"),
    [
        (Decoder(Refusal.INVALID), ".image", "Could not process image"),
        (Decoder(Refusal.TOO_COSTLY), ".image", "Could not process image"),
        (
            Decoder(Refusal.NO_LIBRARY),
            ".image",
            "Could not process image: this server's library for pictures does not load.",
        ),
        (
            Decoder(Refusal.TOO_LARGE),
            ".image.source.base64.data",
            "At least one of the image dimensions exceed max allowed size: 8000 pixels",
        ),
        (Decoder(size=(64, 128)), ".image", "Could not process image"),
    ],
)
async def test_what_is_not_decoded_is_refused_each_time(
    decoder: Decoder, field: str, words: str
) -> None:
    reader = reader_of(decoder)
    for _ in range(2):
        with pytest.raises(InvalidRequestError) as caught:
            await reader.read(call(RED), "", decodes=True)
        assert caught.value.message == f"messages.0.content.0{field}: {words}"


async def test_a_cleared_result_has_no_picture_any_more() -> None:
    use = {"type": "tool_use", "id": "a", "name": "Read", "input": {}}
    large = image_of(picture((512, 512)))
    result = {"type": "tool_result", "tool_use_id": "a", "content": [large]}
    messages = [
        {"role": "user", "content": [RED]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "input_tokens", "value": 1},
        "keep": {"type": "tool_uses", "value": 0},
    }
    fields = {"model": "m", "messages": messages, "context_management": {"edits": [edit]}}
    request = CountTokensRequest.model_validate(fields)
    whole = await reader_of(Decoder()).read(request, "", decodes=False)
    assert len(list(pictures_of(whole.messages))) == 2
    renderer = PromptRenderer(ByteTokenizer(), picture_marks=PictureMarks(START, PAD, END))
    prompt = renderer.render(whole)
    assert len(prompt.rendered.pictures) == 1
    cleared = 16 * 16 + 2 - len("[old tool result removed]")
    assert prompt.original_tokens == len(prompt.tokens) + cleared


async def test_other_blocks_stay_as_they_are() -> None:
    content = [RED, {"type": "text", "text": "t"}]
    result = {"type": "tool_result", "tool_use_id": "a", "content": content}
    whole = await reader_of(Decoder()).read(call(result), "", decodes=True)
    (block,) = whole.messages[0].content
    assert isinstance(block, ToolResultBlock)
    assert block.content[1] == TextBlock(type="text", text="t")
