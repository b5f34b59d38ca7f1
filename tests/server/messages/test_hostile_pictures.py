"""Hostile pictures through the server: each is read or refused, and the server answers on.

`PENSIEVE_FILES=200 pytest tests/server/messages/test_hostile_pictures.py` sends more of these.
"""

import os
import random
from collections import Counter
from collections.abc import Callable

from pensieve.errors import PensieveError
from tests.server.messages.test_documents import flipped, renumbered, repeated, truncated
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says
from tests.support.pdfs import document_of, pdf_of
from tests.support.pictures import SIGHT, data_url, image_of, picture

FILES = int(os.environ.get("PENSIEVE_FILES", "24"))
KINDS = ("PNG", "JPEG", "GIF", "WEBP")


def spliced(content: bytes, chance: random.Random) -> bytes:
    """Return the head of the file with the body of one of another kind."""
    other = picture((50, 50), "green", chance.choice(KINDS))
    return content[: chance.randrange(1, 60)] + other[chance.randrange(len(other)) :]


def hostile(number: int) -> bytes:
    chance = random.Random(number)
    kind = KINDS[number % 4]
    content = picture((chance.randint(1, 300), chance.randint(1, 300)), "blue", kind)
    mutations: list[Callable[[bytes, random.Random], bytes]]
    mutations = [flipped, truncated, repeated, spliced]
    for _ in range(1 + number % 3):
        if content:
            content = mutations[chance.randrange(4)](content, chance)
    return content


def asked(number: int) -> tuple[str, dict[str, object]]:
    """Return a path and a body: the same file by each API, some of them as old pictures."""
    content = hostile(number)
    blocks: list[object] = [image_of(content), {"type": "text", "text": "look"}]
    match number % 5:
        case 0:
            parts = [{"type": "image_url", "image_url": {"url": data_url(content)}}]
            messages = [{"role": "user", "content": parts}]
            return "/v1/chat/completions", {"model": "any", "messages": messages}
        case 1:
            parts = [{"type": "input_image", "image_url": data_url(content)}]
            return "/v1/responses", {
                "model": "any",
                "input": [{"role": "user", "content": parts}],
            }
        case 2:
            pdf = pdf_of("one", "")
            mutate = (flipped, truncated, renumbered)[number % 3]
            blocks = [document_of(mutate(pdf, random.Random(number)))]
        case 3:
            turns = [
                {"role": "user", "content": blocks},
                {"role": "assistant", "content": "ok"},
                {"role": "user", "content": "and"},
            ]
            return "/v1/messages", CALL | {"messages": turns}
        case _:
            pass
    return "/v1/messages", CALL | {"messages": [{"role": "user", "content": blocks}]}


async def test_hostile_files_are_read_or_refused_and_the_server_answers_on() -> None:
    statuses = Counter[int]()
    engine = ScriptedEngine([says("ok")])
    async with in_memory(app_of(engine, sight=SIGHT)) as client:
        for number in range(FILES):
            path, body = asked(number)
            statuses[(await client.post(path, json=body)).status_code] += 1
        alive = {"role": "user", "content": [image_of(picture())]}
        answer = await client.post("/v1/messages", json=CALL | {"messages": [alive]})
        assert answer.status_code == 200
    assert statuses.keys() <= {200, 400, 413}
    assert statuses.keys() >= {200, 400}
    for generation in engine.generations:
        for one in generation.pictures:
            try:
                pixels = await one.pixels()
            except PensieveError:
                continue
            assert len(pixels) == one.rows * one.columns * 32 * 32 * 3
