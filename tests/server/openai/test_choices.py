"""Several answers to one prompt, and logprobs, of chat and text completions in memory."""

from collections import defaultdict
from typing import Any

import anyio
import httpx
import pytest

from pensieve.engine.generation import Finished, Logprobs, Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from tests.server.messages.test_golden import CALLS, THINKER
from tests.server.openai.calls import CALL, CLOCK, chunks_of
from tests.server.serving import app_of, in_memory
from tests.support.fakes import STOP_TOKEN, ScriptedEngine, Step, says

pytestmark = pytest.mark.anyio
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPT = {"prompt": "a"}
BODIES = {CHAT: CALL, TEXT: PROMPT | {"max_tokens": 100}}
both = pytest.mark.parametrize("path", BODIES)


async def post(
    engine: ScriptedEngine, fields: dict[str, Any], path: str = CHAT, **app: Any
) -> httpx.Response:
    async with in_memory(app_of(engine, **app)) as client:
        return await client.post(path, json=BODIES[path] | fields)


def text_of(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return choice["text"]
    return choice.get("message", choice.get("delta"))["content"] or ""


def joined(chunks: list[dict[str, Any]]) -> dict[int, str]:
    texts: dict[int, str] = defaultdict(str)
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice.get("delta", choice)
            texts[choice["index"]] += delta.get("content") or delta.get("text") or ""
    return dict(texts)


@both
async def test_choices_are_generated_for_one_prompt_with_seeds_of_their_own(path: str) -> None:
    engine = ScriptedEngine(
        [says("one", cached_tokens=1), says("two!", cached_tokens=5), says("x")]
    )
    answer = (await post(engine, {"n": 3, "seed": 40}, path)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [text_of(choice) for choice in answer["choices"]] == ["one", "two!", "x"]
    assert [one.sampling.seed for one in engine.generations] == [40, 41, 42]
    assert len({one.prompt_tokens for one in engine.generations}) == 1
    assert all(one.shares_prompt for one in engine.generations)
    usage, prompt = answer["usage"], len(engine.generations[0].prompt_tokens)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, 4 + 5 + 2)
    assert usage["total_tokens"] == prompt + 11
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_choices_without_a_seed_have_none_and_a_lone_one_shares_nothing() -> None:
    engine = ScriptedEngine([says("x")])
    await post(engine, {"n": 2})
    await post(engine, {"seed": 3})
    first, second, lone = engine.generations
    assert (first.sampling.seed, second.sampling.seed, lone.sampling.seed) == (None, None, 3)
    assert (first.shares_prompt, lone.shares_prompt) == (True, False)


@both
async def test_streamed_choices_are_the_whole_ones_and_end_once(path: str) -> None:
    engine = ScriptedEngine([says("one"), says("two!")])
    fields = {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    chunks = chunks_of((await post(engine, fields, path)).text)
    assert joined(chunks) == {0: "one", 1: "two!"}
    *choices, last = chunks
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 9)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(len(chunk["choices"]) == 1 for chunk in choices)
    ends = [one["choices"][0] for one in choices if one["choices"][0]["finish_reason"]]
    assert sorted(end["index"] for end in ends) == [0, 1]


async def test_choices_stream_at_the_same_time() -> None:
    held = anyio.Event()
    slow: list[Step] = [Started(0), Token(97), held, Token(98), Finished("stop_token", 3)]
    *begun, end = says("quick")
    # The first one waits for the second one's end.
    engine = ScriptedEngine([slow, [*begun, held.set, end]])
    response = await post(engine, {"n": 2, "stream": True})
    assert joined(chunks_of(response.text)) == {0: "ab", 1: "quick"}


async def test_choices_may_end_differently() -> None:
    engine = ScriptedEngine([says("one STOP"), says(CALLS)])
    call = {"n": 2, "tools": [CLOCK], "stop": ["STOP"]}
    first, second = (await post(engine, call)).json()["choices"]
    assert (first["finish_reason"], first["message"]["content"]) == ("stop", "one ")
    assert second["finish_reason"] == "tool_calls"
    assert len(second["message"]["tool_calls"]) == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_failure_of_one_choice_is_the_failure_of_all(stream: bool) -> None:
    endless: list[Step] = [Started(0), Token(97), anyio.Event()]
    engine = ScriptedEngine([endless, [Started(0), Token(98), WorkerDiedError("Died.")]])
    response = await post(engine, {"n": 2, "stream": stream})
    if stream:
        assert chunks_of(response.text)[-1]["error"]["code"] == "server_is_overloaded"
    else:
        assert response.status_code == 503
    assert engine.left.is_set()


async def test_busy_engine_refuses_all_choices_with_a_status() -> None:
    engine = ScriptedEngine([says("x")], refusal=EngineBusyError("Busy."))
    response = await post(engine, {"n": 4, "stream": True})
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


# Logprobs.


def scored(text: bytes, top: int = 1) -> list[Step]:
    """Return a script in which the n-th byte has the logarithm -n, and a stop token nearly."""
    others = ((STOP_TOKEN, -0.25), (0xE6, -0.5))[:top]
    tokens = [Token(byte, Logprobs(-at, others)) for at, byte in enumerate(text)]
    return [Started(0), *tokens, Finished("stop_token", len(tokens) + 1)]


async def test_chat_logprobs_are_those_of_the_content() -> None:
    text = "<think>Hm.</think>\n\nHé!".encode()
    engine = ScriptedEngine([scored(text)])
    call = {"logprobs": True, "top_logprobs": 1}
    (choice,) = (await post(engine, call, dialect=THINKER)).json()["choices"]
    assert choice["message"]["content"] == "Hé!"
    assert choice["logprobs"]["refusal"] is None
    content = choice["logprobs"]["content"]
    assert bytes(byte for one in content for byte in one["bytes"]).decode() == "Hé!"
    start = len(text) - 4
    assert [one["logprob"] for one in content] == [-start, -start - 1, -start - 2, -start - 3]
    assert content[1] == {
        "token": "\\xc3",
        "logprob": -start - 1,
        "bytes": [0xC3],
        "top_logprobs": [{"token": "<|end|>", "logprob": -0.25, "bytes": list(b"<|end|>")}],
    }
    assert engine.generations[0].top_logprobs == 1


async def test_streamed_logprobs_are_those_of_each_piece() -> None:
    call = {"logprobs": True, "stream": True, "stop": ["STOP"], "n": 2}
    engine = ScriptedEngine([scored("é one".encode(), 0), scored(b"two STOP more", 0)])
    chunks = [chunk["choices"][0] for chunk in chunks_of((await post(engine, call)).text)]
    for choice in chunks:
        if text := choice["delta"].get("content"):
            reported = [byte for one in choice["logprobs"]["content"] for byte in one["bytes"]]
            assert bytes(reported).decode() == text
        else:
            assert choice["logprobs"] is None
    texts = [choice["delta"].get("content") for choice in chunks if choice["index"] == 1]
    assert "".join(filter(None, texts)) == "two "
    assert [one.top_logprobs for one in engine.generations] == [0, 0]


async def test_text_logprobs_are_lists() -> None:
    engine = ScriptedEngine([scored(b"ab", 2)])
    (choice,) = (await post(engine, {"logprobs": 2}, TEXT)).json()["choices"]
    assert choice["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [0.0, -1.0],
        "top_logprobs": [
            {"<|end|>": -0.25, "\\xe6": -0.5, "a": 0.0},
            {"<|end|>": -0.25, "\\xe6": -0.5, "b": -1.0},
        ],
        "text_offset": [0, 1],
    }
    none = await post(ScriptedEngine([says("x")]), {}, TEXT)
    assert none.json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("token", [260, 999_999_999])
@both
async def test_bias_of_an_unknown_token_is_refused(path: str, token: int) -> None:
    engine = ScriptedEngine([says("x")])
    response = await post(engine, {"logit_bias": {str(token): 1}, "stream": True}, path)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["message"]) == (
        "logit_bias",
        f"logit_bias: The model has no token {token}",
    )
    assert engine.generations == []
