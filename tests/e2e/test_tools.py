"""Calls by the real embedded model at temperature 1: whatever it means to say, what it calls is valid.

A model this small does not call tools by itself; so it must. A few requests in the ordinary run, `PENSIEVE_ROUNDS` times as many
when that is set; what became of them is printed (`pytest -s`).
"""

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import cycle, islice
from typing import Any

import anyio
import jsonschema
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message

from benchmarks.grammar import TOOLS as AGENT_TOOLS
from tests.e2e.conftest import KEY, Journey
from tests.engine.grammar_cases import TOOL_SETS, Schema

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("PENSIEVE_ROUNDS", "0"))
# As many as decode together.
AT_ONCE = 4
# In ordinary runs a rambling call may be cut, which it must say.
MOST_TOKENS = 1000 if ROUNDS else 120
SETS: Mapping[str, Mapping[str, Schema]] = {**TOOL_SETS, "agent": AGENT_TOOLS}
# Twenty; the coding agent's have texts without a bound, over which a small model rambles.
FORMS = list(islice((schema for tools in SETS.values() for schema in tools.values()), 20))
ASKED = [{"role": "user", "content": "Do what there is to do. Use a tool."}]


def told(tools: Mapping[str, Schema]) -> list[dict[str, Any]]:
    return [{"name": name, "input_schema": schema} for name, schema in tools.items()]


def check_calls(message: Message, tools: Mapping[str, Schema]) -> str:
    """Every call of the message is valid, but the last of one that was cut. Returns why it ended."""
    uses = [block for block in message.content if block.type == "tool_use"]
    whole = uses[:-1] if message.stop_reason == "max_tokens" else uses
    for use in whole:
        jsonschema.validate(use.input, tools[use.name])
    assert all(use.name in tools for use in uses)
    return str(message.stop_reason)


Ask = Callable[..., Awaitable[Message]]


@pytest.fixture
async def ask(server: Journey) -> AsyncIterator[Ask]:
    client = AsyncAnthropic(base_url=server.base_url, api_key=KEY, max_retries=0, timeout=900)

    async def ask(**fields: Any) -> Message:
        return await client.messages.create(
            model="m", max_tokens=MOST_TOKENS, messages=ASKED, extra_body={"temperature": 1}, **fields
        )  # fmt: skip

    async with client:
        yield ask


async def all_of(work: list[Callable[[], Awaitable[str]]]) -> Counter[str]:
    """Do all of it, some at once, and count how it ended."""
    ended: Counter[str] = Counter()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def run(one: Callable[[], Awaitable[str]]) -> None:
        async with limiter:
            ended[await one()] += 1

    async with anyio.create_task_group() as tasks:
        for one in work:
            tasks.start_soon(run, one)
    print(dict(ended))  # noqa: T201
    return ended


@pytest.mark.parametrize("kind", ["any", "tool"])
async def test_what_must_be_called_is_called_and_valid(ask: Ask, kind: str) -> None:
    """Ten of each kind's ten tool sets and a coding agent's, in the long run; every third set and the agent's once in the ordinary one."""
    names = list(SETS) if ROUNDS else [*islice(SETS, 0, None, 3), "agent"]
    whole_calls: Counter[str] = Counter()

    def one(name: str, at: int) -> Callable[[], Awaitable[str]]:
        tools = SETS[name]
        named = list(tools)[at % len(tools)]

        async def run() -> str:
            choice = {"type": "any"} if kind == "any" else {"type": "tool", "name": named}
            message = await ask(tools=told(tools), tool_choice=choice)
            uses = [block.name for block in message.content if block.type == "tool_use"]
            assert uses
            others = [block for block in message.content if block.type != "tool_use"]
            assert not others, (others, message)
            assert kind == "any" or uses == [named]
            ending = check_calls(message, tools)
            whole_calls.update(uses[:-1] if ending == "max_tokens" else uses)
            return ending

        return run

    ended = await all_of([one(name, at) for at in range(ROUNDS or 1) for name in names])
    assert set(ended) <= {"tool_use", "max_tokens"}
    # Those that may call again and again are cut at the ordinary length more often than not, in the midst of their last call.
    assert whole_calls.total() if kind == "any" else ended["tool_use"]


async def test_no_tool_is_called_where_none_may_be_and_one_where_one_may(ask: Ask) -> None:
    tools = SETS["files"]

    def one(choice: dict[str, Any], most: int) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            message = await ask(tools=told(tools), tool_choice=choice)
            assert sum(block.type == "tool_use" for block in message.content) <= most
            return check_calls(message, tools)

        return run

    single = {"disable_parallel_tool_use": True}
    kinds = [({"type": "none"}, 0), ({"type": "any", **single}, 1), ({"type": "auto", **single}, 1)]
    await all_of([one(*kind) for kind in kinds * (ROUNDS or 1)])


async def test_what_has_a_form_is_valid(ask: Ask) -> None:
    count = 5 * ROUNDS or 4

    def one(schema: Schema) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            message = await ask(output_config={"format": {"type": "json_schema", "schema": schema}})
            (text,) = message.content
            if message.stop_reason == "end_turn":
                jsonschema.validate(json.loads(text.text), schema)
            return str(message.stop_reason)

        return run

    ended = await all_of([one(schema) for schema in islice(cycle(FORMS), count)])
    assert set(ended) <= {"end_turn", "max_tokens"}
    assert ended["end_turn"]
