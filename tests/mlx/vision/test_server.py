"""Pictures from a request to the tokens of a real engine: sight, pixels, prefix cache, counts."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.models.folder.sight import END, PAD, START
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.load import open_model
from pensieve.paths import under_home
from pensieve.server.app import build_app
from pensieve.settings.resolve import Settings
from tests.engine.states import in_state
from tests.mlx.vision.models import build
from tests.server.serving import CALL, in_memory
from tests.support.pictures import image_of, picture
from tests.support.tiny_models import CHATML_TEMPLATE

pytestmark = pytest.mark.anyio

LOOK = {"type": "text", "text": "look at this"}


def seeing(folder: Path) -> ModelFolder:
    build("qwen3_5", folder, "mlx")
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.add_special_tokens([START, PAD, END])
    tokenizer.save(file)
    config = {"chat_template": CHATML_TEMPLATE, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    sizes = {"size": {"shortest_edge": 4096, "longest_edge": 16384}}
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes))
    return ModelFolder("sees", "tests/sees", folder)


async def test_a_conversation_with_pictures_is_answered_and_continues_from_the_cache(
    tmp_path: Path,
) -> None:
    model = open_model(seeing(tmp_path / "model"))
    assert model.sight is not None
    settings = Settings(paths=under_home(tmp_path / "home"), device="cpu")
    user = {"role": "user", "content": [image_of(picture((200, 100))), LOOK]}
    body = CALL | {"messages": [user], "max_tokens": 8, "temperature": 0}
    async with running_engine(WorkerSpec(model.folder, "cpu")) as engine:
        await in_state(engine, "ready", timeout_s=60)
        async with in_memory(build_app(engine, model, settings)) as client:

            async def answer(messages: list[object]) -> dict[str, object]:
                response = await client.post("/v1/messages", json=body | {"messages": messages})
                assert response.status_code == 200, response.text
                return response.json()

            counting = {name: body[name] for name in ("model", "messages")}
            counted = await client.post("/v1/messages/count_tokens", json=counting)
            first = await answer([user])
            assert first["usage"]["input_tokens"] == counted.json()["input_tokens"]
            again = await answer([user])
            assert again["content"] == first["content"]
            usage = again["usage"]
            assert usage["cache_read_input_tokens"] > 20
            assert (
                usage["cache_read_input_tokens"] + usage["input_tokens"]
                == (first["usage"]["input_tokens"])
            )
            other = {"role": "user", "content": [image_of(picture((200, 100), "blue")), LOOK]}
            seen = await answer([other])
            assert seen["usage"]["cache_read_input_tokens"] < 20
            reply = {"role": "assistant", "content": "x"}
            more = {"role": "user", "content": [LOOK, image_of(picture((60, 60), "green"))]}
            await answer([user, reply, more])
