"""Pictures in chat completions and responses: data URLs, details, files, results, errors."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pensieve.engine.generation import Generation
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.server.serving import app_of, in_memory
from tests.support.fakes import ScriptedEngine, says
from tests.support.pictures import SIGHT, data_url, picture, shown

RED = data_url(picture())
TEXT = {"type": "text", "text": "look"}
CUT = data_url(picture((400, 400), kind="JPEG")[:-300])
WEB = "https://127.0.0.1/a.png"
BY_URL = "Could not process image: pictures by URL are not fetched; send a data URL with base64"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def chat(*parts: object) -> dict[str, object]:
    return {"model": "any", "messages": [{"role": "user", "content": list(parts)}]}


def chat_image(url: str = RED, **fields: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def responses(*parts: object) -> dict[str, object]:
    return {"model": "any", "input": [{"role": "user", "content": list(parts)}]}


def input_image(url: str = RED, **fields: object) -> dict[str, object]:
    return {"type": "input_image", "image_url": url, **fields}


async def generation(path: str, body: Mapping[str, object]) -> Generation:
    engine = ScriptedEngine([says("ok")])
    async with in_memory(app_of(engine, sight=SIGHT)) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    (one,) = engine.generations
    return one


async def error_of(path: str, body: Mapping[str, object], sight: object = SIGHT) -> object:
    """Return the error's message and field."""
    async with in_memory(app_of(ScriptedEngine([says("no")]), sight=sight)) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    return error["message"], error["param"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(TEXT, chat_image(), TEXT)),
        (CHAT, chat(TEXT, {"type": "image_url", "image_url": RED}, TEXT)),
        (RESPONSES, responses(TEXT, input_image(), TEXT)),
    ],
)
async def test_pictures_are_in_their_places(path: str, body: dict[str, object]) -> None:
    one = await generation(path, body)
    assert "<|user|>\nlook{0}look<|end|>" in shown(one)
    assert await one.pictures[0].pixels() == bytes((255, 0, 0)) * 128 * 64


@pytest.mark.parametrize(
    ("path", "make"),
    [
        (CHAT, lambda detail: chat(chat_image(data_url(picture((1920, 1080))), detail=detail))),
        (
            RESPONSES,
            lambda detail: responses(input_image(data_url(picture((1920, 1080))), detail=detail)),
        ),
    ],
)
async def test_low_detail_is_a_coarse_view(path: str, make) -> None:
    (low,) = (await generation(path, make("low"))).pictures
    (high,) = (await generation(path, make("high"))).pictures
    assert (low.rows, low.columns) == (12, 21)
    assert (high.rows, high.columns) == (26, 47)
    assert len(await low.pixels()) == 12 * 21 * 32 * 32 * 3
    assert low.id != high.id


async def test_pictures_in_results_are_seen() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "view", "arguments": "{}"}}
    body = chat(TEXT) | {
        "messages": [
            {"role": "user", "content": "read"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": [TEXT, chat_image()]},
        ]
    }
    assert "look{0}" in shown(await generation(CHAT, body))
    items = [
        {"role": "user", "content": "read"},
        {"type": "function_call", "call_id": "a", "name": "view", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": [TEXT, input_image()]},
    ]
    assert "look{0}" in shown(await generation(RESPONSES, {"model": "any", "input": items}))


async def test_what_cannot_be_read_in_a_result_is_a_note() -> None:
    for url, note in [
        (WEB, "[image that this model cannot read]"),
        (CUT, "[image that cannot be read: Could not process image]"),
        ("data:image/png,plain", "[image that this model cannot read]"),
    ]:
        items = [
            {"role": "user", "content": "read"},
            {"type": "function_call", "call_id": "a", "name": "view", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": [input_image(url)]},
        ]
        one = await generation(RESPONSES, {"model": "any", "input": items})
        assert note in shown(one)
        assert one.pictures == ()


@pytest.mark.parametrize(
    ("path", "body", "field", "words"),
    [
        (CHAT, chat(TEXT, chat_image(WEB)), "messages[0].content[1].image_url.url", BY_URL),
        (RESPONSES, responses(input_image(WEB)), "input[0].content[0].image_url", BY_URL),
        (
            CHAT,
            chat(chat_image(CUT)),
            "messages[0].content[0].image_url.url",
            "Could not process image",
        ),
        (
            RESPONSES,
            responses(TEXT, input_image(CUT)),
            "input[0].content[1].image_url",
            "Could not process image",
        ),
    ],
)
async def test_a_picture_that_is_not_read_is_refused_by_its_field(
    path: str, body: dict[str, object], field: str, words: str
) -> None:
    assert await error_of(path, body) == (f"{field}: {words}", field)


async def test_a_model_without_vision_refuses_pictures() -> None:
    words = "Could not process image: model 'any' does not support image input"
    for path, body, field in [
        (CHAT, chat(chat_image()), "messages[0].content[0].type"),
        (RESPONSES, responses(input_image()), "input[0].content[0].type"),
    ]:
        assert await error_of(path, body, sight=None) == (f"{field}: {words}", field)


@pytest.mark.parametrize("role", ["system", "assistant"])
async def test_only_users_and_tools_send_pictures(role: str) -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": role, "content": [chat_image()]},
        {"role": "user", "content": "and"},
    ]
    message, _ = await error_of(CHAT, {"model": "any", "messages": messages})
    assert message.endswith("`image` blocks can only be in `user` messages")


async def test_uploaded_pictures_are_seen_and_counted(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("ok")])
    settings = Settings(paths=under_home(tmp_path), device="cpu")
    async with in_memory(app_of(engine, settings=settings, sight=SIGHT)) as client:
        upload = {"file": ("a.png", picture(), "image/png")}
        stored = (await client.post("/v1/files", files=upload)).json()
        part = {"type": "input_image", "file_id": stored["id"]}
        answer = (await client.post(RESPONSES, json=responses(part))).json()
        counted = await client.post("/v1/responses/input_tokens", json=responses(part))
        missing = {"type": "input_image", "file_id": "file_0"}
        unknown = await client.post(RESPONSES, json=responses(missing))
    assert [(one.rows, one.columns) for one in engine.generations[0].pictures] == [(2, 4)]
    assert counted.json()["input_tokens"] == answer["usage"]["input_tokens"]
    assert unknown.status_code == 404
