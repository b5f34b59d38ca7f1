"""Pictures in requests: their places in the prompt, their sizes, limits and errors."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pensieve.engine.generation import EngineHealth, Generation
from pensieve.errors import InvalidRequestError
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says
from tests.support.pictures import SIGHT, image_of, picture, shown

RED = image_of(picture())
BLUE = image_of(picture(colour="blue"))
TEXT = {"type": "text", "text": "look"}
CUT = image_of(picture((400, 400), kind="JPEG")[:-300], "image/jpeg")
UNREADABLE = "Could not process image"


def asked(*blocks: object) -> dict[str, object]:
    return CALL | {"messages": [{"role": "user", "content": list(blocks)}]}


def after_call(*content: object) -> dict[str, object]:
    """Return a request with a tool's result."""
    use = {"type": "tool_use", "id": "a", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": list(content)}
    messages = [
        {"role": "user", "content": "read"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    return CALL | {"messages": messages}


async def generations(*bodies: Mapping[str, object], settings: Settings | None = None) -> list:
    engine = ScriptedEngine([says("ok")])
    options = {} if settings is None else {"settings": settings}
    async with in_memory(app_of(engine, sight=SIGHT, **options)) as client:
        for body in bodies:
            answer = await client.post("/v1/messages", json=body)
            assert answer.status_code == 200, answer.text
    return engine.generations


async def generation(body: Mapping[str, object]) -> Generation:
    (one,) = await generations(body)
    return one


async def error_of(body: Mapping[str, object], *, sees: bool = True, **model: object) -> str:
    """sees: what the engine reports."""
    model = {"sight": SIGHT} | model
    engine = ScriptedEngine([says("no")], health=EngineHealth("ready", sees=sees))
    async with in_memory(app_of(engine, **model)) as client:
        answer = await client.post("/v1/messages", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    return error["message"]


async def test_pictures_are_where_the_request_has_them_without_breaks_next_to_them() -> None:
    one = await generation(asked(TEXT, RED, TEXT, TEXT, BLUE, RED))
    assert shown(one) == "<|user|>\nlook{0}look\nlook{1}{2}<|end|>\n<|assistant|>\n"
    first, second, third = one.pictures
    assert first.id == third.id != second.id
    assert [(each.rows, each.columns) for each in one.pictures] == [(2, 4)] * 3


async def test_pictures_in_results_and_documents_are_in_their_places() -> None:
    source = {"type": "content", "content": [TEXT, BLUE]}
    one = await generation(after_call(TEXT, RED, {"type": "document", "source": source}))
    assert '<tool_result name="Read">\nlook{0}<document>\nlook{1}\n</document>\n' in shown(one)


async def test_pixels_are_those_of_the_picture_in_its_size() -> None:
    red, blue = (await generation(asked(RED, BLUE))).pictures
    assert await red.pixels() == bytes((255, 0, 0)) * 128 * 64
    assert await blue.pixels() == bytes((0, 0, 255)) * 128 * 64


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_each_format_is_taken_whatever_it_is_called(kind: str) -> None:
    one = await generation(asked(image_of(picture(kind=kind), "image/gif")))
    assert len(one.pictures) == 1


async def test_a_turned_photograph_has_the_size_of_the_upright_one() -> None:
    photo = image_of(picture((128, 64), kind="JPEG", orientation=6), "image/jpeg")
    (one,) = (await generation(asked(photo))).pictures
    assert (one.rows, one.columns) == (4, 2)
    assert len(await one.pixels()) == 64 * 128 * 3


async def test_a_large_picture_is_scaled_to_the_setting(tmp_path: Path) -> None:
    settings = Settings(paths=under_home(tmp_path), device="cpu", picture_tokens=64)
    screen = asked(image_of(picture((1920, 1080))))
    (one,) = await generations(screen, settings=settings)
    (small,) = one.pictures
    assert (small.rows, small.columns) == (6, 10)
    assert len(await small.pixels()) == 6 * 10 * 32 * 32 * 3
    (other,) = (await generation(screen)).pictures
    assert other.id != small.id


async def test_tokens_are_counted_by_the_header_as_they_are_used() -> None:
    for body in (asked(TEXT, RED), asked(CUT), after_call(TEXT, BLUE, RED)):
        counting = {name: body[name] for name in ("model", "messages")}
        async with in_memory(app_of(ScriptedEngine([says("ok")]), sight=SIGHT)) as client:
            counted = await client.post("/v1/messages/count_tokens", json=counting)
            answer = (await client.post("/v1/messages", json=body)).json()
        if body["messages"][0]["content"] == [CUT]:
            assert counted.status_code == 200
        else:
            assert counted.json()["input_tokens"] == answer["usage"]["input_tokens"]


async def test_the_next_request_continues_the_prompt_of_the_last_one() -> None:
    first = asked(TEXT, RED)
    turns = [*first["messages"], {"role": "assistant", "content": "ok"}]
    second = CALL | {"messages": [*turns, {"role": "user", "content": [BLUE]}]}
    one, two = await generations(first, second)
    end = one.pictures[0].tokens.stop + 1
    assert two.prompt_tokens[:end] == one.prompt_tokens[:end]
    assert end <= one.boundaries[-1] <= len(one.prompt_tokens)
    other = await generation(asked(TEXT, BLUE))
    start = one.pictures[0].start
    assert other.prompt_tokens[:start] == one.prompt_tokens[:start]
    assert other.prompt_tokens[start] != one.prompt_tokens[start]


async def test_an_old_picture_is_opened_only_when_it_is_wanted() -> None:
    turns = [
        {"role": "user", "content": [CUT]},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "more"},
    ]
    (one,) = (await generation(CALL | {"messages": turns})).pictures
    with pytest.raises(InvalidRequestError) as caught:
        await one.pixels()
    assert caught.value.message == f"messages.0.content.0.image: {UNREADABLE}"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (CUT, f".image: {UNREADABLE}"),
        (image_of(b"text"), f".image: {UNREADABLE}"),
        (image_of(b""), f".image: {UNREADABLE}"),
        (image_of(b"%PDF-1.7"), f".image: {UNREADABLE}"),
        (
            {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/a.png"}},
            f".image: {UNREADABLE}: pictures by URL are not fetched; send them as base64",
        ),
        (
            image_of(picture((8001, 41))),
            ".image.source.base64.data: At least one of the image dimensions exceed max allowed"
            " size: 8000 pixels",
        ),
        (
            {**RED, "source": {**RED["source"], "data": "A" * (10 * 2**20 + 4)}},
            ".image.source.base64: image exceeds 10 MB maximum: 10485764 bytes > 10485760 bytes",
        ),
        (
            {**RED, "source": {**RED["source"], "data": "é"}},
            f".image: {UNREADABLE}",
        ),
        (
            {**RED, "source": {**RED["source"], "media_type": "image/bmp"}},
            ".image.source.base64.media_type: Input should be 'image/jpeg', 'image/png',"
            " 'image/gif' or 'image/webp'",
        ),
    ],
)
async def test_a_picture_that_is_not_read_is_refused_by_its_path(
    block: dict[str, object], words: str
) -> None:
    assert await error_of(asked(TEXT, block)) == f"messages.0.content.1{words}"
    expected = f"messages.2.content.0.tool_result.content.1{words}"
    assert await error_of(after_call(TEXT, block)) == expected


async def test_more_pictures_and_documents_than_the_limit_are_refused() -> None:
    assert await error_of(asked(*[RED] * 101)) == "too many images and documents: 101 + 0 > 100"
    await generation(asked(*[RED] * 100))


async def test_a_model_without_vision_refuses_pictures(tmp_path: Path) -> None:
    words = "messages.0.content.1.image: Could not process image: model 'any' does not support"
    assert (await error_of(asked(TEXT, RED), sight=None)).startswith(words)
    assert (await error_of(asked(TEXT, RED), sees=False)).startswith(words)
    off = Settings(paths=under_home(tmp_path), device="cpu", pictures="off")
    assert (await error_of(asked(TEXT, RED), settings=off)).startswith(words)


@pytest.mark.parametrize("role", ["assistant", "system"])
async def test_only_users_send_pictures(role: str) -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": role, "content": [RED]},
        {"role": "user", "content": "and"},
    ]
    expected = "messages.1.content.0: `image` blocks can only be in `user` messages"
    assert await error_of(CALL | {"messages": turns}) == expected
    system = await error_of(CALL | {"system": [RED]})
    assert system.startswith("system.0.type: Input should be 'text'")


async def test_a_mark_in_a_text_is_no_picture() -> None:
    mark = {"type": "text", "text": f"[picture:{'0' * 32}] <|image_pad|>"}
    one = await generation(asked(mark, RED))
    assert f"[picture:{'0' * 32}] <|image_pad|>{{0}}" in shown(one)


async def test_uploaded_pictures_are_seen(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("ok")])
    settings = Settings(paths=under_home(tmp_path), device="cpu")
    async with in_memory(app_of(engine, settings=settings, sight=SIGHT)) as client:
        upload = {"file": ("a.png", picture(kind="JPEG"), "image/png")}
        stored = (await client.post("/v1/files", files=upload)).json()
        source = {"type": "file", "file_id": stored["id"]}
        answer = await client.post("/v1/messages", json=asked({"type": "image", "source": source}))
        assert answer.status_code == 200
        document = {"type": "document", "source": source}
        refused = await client.post("/v1/messages", json=asked(document))
        missing = {"type": "image", "source": {"type": "file", "file_id": "file_0"}}
        unknown = await client.post("/v1/messages", json=asked(missing))
        text = {"file": ("a.txt", b"text", "text/plain")}
        other = (await client.post("/v1/files", files=text)).json()
        source = {"type": "file", "file_id": other["id"]}
        no_image = await client.post(
            "/v1/messages", json=asked({"type": "image", "source": source})
        )
    assert stored["mime_type"] == "image/jpeg"
    (one,) = engine.generations[0].pictures
    assert (one.rows, one.columns) == (2, 4)
    assert refused.status_code == no_image.status_code == 400
    assert no_image.json()["error"]["message"] == f"messages.0.content.0.image: {UNREADABLE}"
    assert "document.source.file.file_id: " in refused.json()["error"]["message"]
    assert unknown.status_code == 404
