"""A tiny model that sees, through the real server: pictures that it was not taught."""

import base64
import random
from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.installation import KEY, Installation
from tests.mlx.vision.seeing_model import (
    COLOURS,
    GRIDS,
    QUESTION,
    UNIT,
    answer_of,
    picture,
    png,
    seeing_folder,
)
from tests.support.ports import free_port

PICTURES = 20
MOST_WRONG = PICTURES // 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("sees"), free_port())
    start(installation)
    yield installation
    installation.pensieve("stop")


def start(installation: Installation) -> None:
    installation.pensieve("start", "--model", str(seeing_folder()), "--device", "cpu")


@pytest.fixture
def client(server: Installation) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.base_url, api_key=KEY) as client:
        yield client


def block(content: bytes) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    }


def shown(seed: int, unit: int = UNIT) -> tuple[bytes, str]:
    """Return a picture, in a size that the model was not always taught, and its answer."""
    draw = random.Random(1000 + seed)
    rows, columns = GRIDS[seed % len(GRIDS)]
    left, right = draw.choices(list(COLOURS), k=2)
    pixels = picture(left, right, (columns * unit, rows * unit), draw)
    return png(pixels), answer_of(left, right)


def answered(client: anthropic.Anthropic, messages: Sequence[Any]) -> tuple[str, int]:
    """Return the text and the cached tokens."""
    message = client.messages.create(
        model="local", max_tokens=20, messages=list(messages), extra_body={"temperature": 0}
    )
    assert isinstance(message.content[0], anthropic.types.TextBlock)
    return message.content[0].text, message.usage.cache_read_input_tokens or 0


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_pictures_that_it_was_not_taught_are_seen(
    server: Installation, client: anthropic.Anthropic
) -> None:
    cases = [shown(seed) for seed in range(PICTURES)]
    asked = [user(block(content), text(QUESTION)) for content, _ in cases]
    cold = [answered(client, [one])[0] for one in asked]
    wrong = [number for number, (_, right) in enumerate(cases) if cold[number] != right]
    assert len(wrong) <= MOST_WRONG
    again = [answered(client, [one]) for one in asked]
    assert [words for words, _ in again] == cold
    assert min(cached for _, cached in again) > 0
    server.pensieve("restart")
    assert [answered(client, [one])[0] for one in asked] == cold


def test_the_right_picture_reaches_the_right_turn(client: anthropic.Anthropic) -> None:
    first, first_answer = shown(2)
    other, other_answer = next(
        (content, answer)
        for content, answer in map(shown, range(7, 99, 5))
        if answer != first_answer
    )
    for one, another, answer in ((first, other, other_answer), (other, first, first_answer)):
        earlier = [
            user(block(one), text(QUESTION)),
            {"role": "assistant", "content": "blue and red"},
        ]
        conversation = [*earlier, user(block(another), text(QUESTION))]
        assert answered(client, conversation)[0] == answer
        assert answered(client, conversation)[1] > 0


def test_counted_tokens_are_those_of_the_prompt(client: anthropic.Anthropic) -> None:
    asked: Any = [user(block(shown(1)[0]), text(QUESTION))]
    counted = client.messages.count_tokens(model="local", messages=asked).input_tokens
    usage = client.messages.create(model="local", max_tokens=1, messages=asked).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_pictures_in_results_of_tools_are_seen(client: anthropic.Anthropic) -> None:
    content, _ = shown(3)
    use = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a.png"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [block(content)]}
    tool: Any = {"name": "Read", "input_schema": {"type": "object"}}
    asked: Any = [user(text("Look.")), {"role": "assistant", "content": [use]}, user(result)]
    without: Any = [*asked[:2], user({**result, "content": [text("")]})]
    counts = [
        client.messages.count_tokens(model="local", messages=messages, tools=[tool]).input_tokens
        for messages in (asked, without)
    ]
    rows, columns = GRIDS[3]
    assert counts[0] - counts[1] >= rows * columns + 2
    answer = client.messages.create(model="local", max_tokens=5, messages=asked, tools=[tool])
    assert answer.usage.output_tokens > 0


def test_openais_client_shows_pictures(server: Installation) -> None:
    content, answer = shown(4)
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=KEY) as client:
        parts: Any = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": QUESTION},
        ]
        chat = client.chat.completions.create(
            model="local", temperature=0, messages=[{"role": "user", "content": parts}]
        )
        items: Any = [
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": url, "detail": "auto"},
                    {"type": "input_text", "text": QUESTION},
                ],
            }
        ]
        response = client.responses.create(model="local", temperature=0, input=items)
    assert chat.choices[0].message.content == answer
    assert response.output_text == answer


def test_damaged_pictures_are_refused_and_the_server_lives(client: anthropic.Anthropic) -> None:
    content, answer = shown(0)
    for damaged in (content[: len(content) // 2], b"no picture", b""):
        with pytest.raises(anthropic.BadRequestError, match="Could not process image"):
            answered(client, [user(block(damaged), text(QUESTION))])
    assert answered(client, [user(block(content), text(QUESTION))])[0] == answer
