"""A client's next request begins with the tokens of its last one and the answer, which are cached.

Clients return answers altered: without thoughts, with the keys of arguments in another order.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.server.messages.test_golden import THINKER
from tests.server.openai.calls import CALL, RESPOND
from tests.server.serving import app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio

ARGUMENTS = '{"path": "a b", "line": 3, "all": true}'
CALLING = f'<tool_call>\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>'
THOUGHT = "<think>\nHm.\n</think>\n\n"
LOOK = {"name": "look", "parameters": {"type": "object"}}

Message = dict[str, Any]


def without_thought(message: Message) -> Message:
    return {key: value for key, value in message.items() if "reasoning" not in key}


def reordered(arguments: str) -> str:
    """Return JSON as a client writes it that parses and sorts."""
    return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":"))


def with_reordered_keys(message: Message) -> Message:
    (call,) = message["tool_calls"]
    function = call["function"] | {"arguments": reordered(call["function"]["arguments"])}
    return message | {"tool_calls": [call | {"function": function}]}


def altered(message: Message) -> Message:
    return with_reordered_keys(without_thought(message))


async def chat_prompts(text: str, alter: Callable[[Message], Message]) -> list[Sequence[int]]:
    """Return the prompts of a request and of the next, in which the client has altered the answer
    `text`.
    """
    engine = ScriptedEngine([says(text)])
    call = CALL | {"tools": [{"type": "function", "function": LOOK}]}
    async with in_memory(app_of(engine, dialect=THINKER)) as client:
        answer = (await client.post("/v1/chat/completions", json=call)).json()
        message = answer["choices"][0]["message"]
        following = [
            {"role": "tool", "tool_call_id": each["id"], "content": "ok"}
            for each in message.get("tool_calls", ())
        ] or [{"role": "user", "content": "And now?"}]
        messages = [*CALL["messages"], alter(message), *following]
        await client.post("/v1/chat/completions", json=call | {"messages": messages})
    return [generation.prompt_tokens for generation in engine.generations]


@pytest.mark.parametrize("alter", [dict, without_thought, with_reordered_keys, altered])
@pytest.mark.parametrize("text", ["", "I look.\n"])
async def test_chat_after_a_call_begins_with_the_whole_answer(
    text: str, alter: Callable[[Message], Message]
) -> None:
    answer = f"{THOUGHT}{text}{CALLING}"
    first, second = await chat_prompts(answer, alter)
    whole = [*first, *answer.encode()]
    assert list(second[: len(whole)]) == whole


async def test_chat_after_a_text_begins_with_the_whole_answer() -> None:
    answer = f"{THOUGHT}Done."
    first, second = await chat_prompts(answer, dict)
    whole = [*first, *answer.encode()]
    assert list(second[: len(whole)]) == whole


async def test_chat_after_a_text_whose_thought_was_dropped_begins_with_the_prompt() -> None:
    first, second = await chat_prompts(f"{THOUGHT}Done.", without_thought)
    whole = [*first, *b"Done."]
    assert list(second[: len(whole)]) == whole


@pytest.mark.parametrize("keeps_thought", [True, False])
@pytest.mark.parametrize("reorders", [True, False])
async def test_response_after_a_call_begins_with_the_whole_answer(
    keeps_thought: bool, reorders: bool
) -> None:
    answer = f"{THOUGHT}{CALLING}"
    engine = ScriptedEngine([says(answer)])
    user = {"role": "user", "content": "hello"}
    call = RESPOND | {"tools": [LOOK | {"type": "function"}], "input": [user], "store": False}
    call |= {"include": ["reasoning.encrypted_content"]}
    async with in_memory(app_of(engine, dialect=THINKER)) as client:
        thought, made = (await client.post("/v1/responses", json=call)).json()["output"]
        returned = made | {"arguments": reordered(made["arguments"])} if reorders else made
        result = {"type": "function_call_output", "call_id": made["call_id"], "output": "ok"}
        items = [user, *([thought] if keeps_thought else []), returned, result]
        await client.post("/v1/responses", json=call | {"input": items})
    first, second = (generation.prompt_tokens for generation in engine.generations)
    whole = [*first, *answer.encode()]
    assert list(second[: len(whole)]) == whole
