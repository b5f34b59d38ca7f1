"""Tool calls of the embedded model at temperature 1 are valid.

A model this small does not call tools by itself, so that calls are required. An ordinary run sends
a few requests, PENSIEVE_ROUNDS times as many if set; the outcomes are printed (`pytest -s`).
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
from tests.e2e.installation import KEY, Installation
from tests.engine.grammar_cases import TOOL_SETS, Schema

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("PENSIEVE_ROUNDS", "0"))
# The size of a decode batch.
CONCURRENCY = 4
# In ordinary runs a long call may be truncated; the stop reason must say so.
MAX_TOKENS = 1000 if ROUNDS else 120
ALL_TOOL_SETS: Mapping[str, Mapping[str, Schema]] = {**TOOL_SETS, "agent": AGENT_TOOLS}
# Twenty. Those of the coding agent have unbounded texts, in which a small model does not stop.
EVERY_SCHEMA = (schema for tools in ALL_TOOL_SETS.values() for schema in tools.values())
SCHEMAS = list(islice(EVERY_SCHEMA, 20))
MESSAGES = [{"role": "user", "content": "Do what there is to do. Use a tool."}]


def definitions(tools: Mapping[str, Schema]) -> list[dict[str, Any]]:
    return [{"name": name, "input_schema": schema} for name, schema in tools.items()]


def check_calls(message: Message, tools: Mapping[str, Schema]) -> str:
    """Check that every call is valid, except a truncated last one; return the stop reason."""
    uses = [block for block in message.content if block.type == "tool_use"]
    whole = uses[:-1] if message.stop_reason == "max_tokens" else uses
    for use in whole:
        jsonschema.validate(use.input, tools[use.name])
    assert all(use.name in tools for use in uses)
    return str(message.stop_reason)


Ask = Callable[..., Awaitable[Message]]


@pytest.fixture
async def ask(server: Installation) -> AsyncIterator[Ask]:
    client = AsyncAnthropic(base_url=server.base_url, api_key=KEY, max_retries=0, timeout=900)

    async def ask(**fields: Any) -> Message:
        return await client.messages.create(
            model="m",
            messages=MESSAGES,
            extra_body={"temperature": 1},
            **{"max_tokens": MAX_TOKENS} | fields,
        )

    async with client:
        yield ask


async def run_all(jobs: list[Callable[[], Awaitable[str]]]) -> Counter[str]:
    """Run the jobs, some at once; print and return the counts of their results."""
    counts: Counter[str] = Counter()
    limiter = anyio.CapacityLimiter(CONCURRENCY)

    async def run(job: Callable[[], Awaitable[str]]) -> None:
        async with limiter:
            counts[await job()] += 1

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(run, job)
    print(dict(counts))  # noqa: T201
    return counts


@pytest.mark.parametrize("kind", ["any", "tool"])
async def test_required_calls_are_made_and_valid(ask: Ask, kind: str) -> None:
    """A long run sends every tool set, an ordinary one every sixth and the coding agent's."""
    names = list(ALL_TOOL_SETS) if ROUNDS else [*islice(ALL_TOOL_SETS, 0, None, 6), "agent"]
    whole_calls: Counter[str] = Counter()

    def one(name: str, at: int) -> Callable[[], Awaitable[str]]:
        tools = ALL_TOOL_SETS[name]
        tool_name = list(tools)[at % len(tools)]

        async def run() -> str:
            choice = {"type": "any"} if kind == "any" else {"type": "tool", "name": tool_name}
            message = await ask(tools=definitions(tools), tool_choice=choice)
            uses = [block.name for block in message.content if block.type == "tool_use"]
            assert uses
            others = [block for block in message.content if block.type != "tool_use"]
            assert not others, (others, message)
            assert kind == "any" or uses == [tool_name]
            stop_reason = check_calls(message, tools)
            whole_calls.update(uses[:-1] if stop_reason == "max_tokens" else uses)
            return stop_reason

        return run

    counts = await run_all([one(name, at) for at in range(ROUNDS or 1) for name in names])
    assert set(counts) <= {"tool_use", "max_tokens"}
    # With "any" most answers are truncated at the ordinary length, within their last call.
    assert whole_calls.total() if kind == "any" else counts["tool_use"]


async def test_tool_choice_limits_the_number_of_calls(ask: Ask) -> None:
    tools = ALL_TOOL_SETS["files"]

    def one(choice: dict[str, Any], max_calls: int) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            message = await ask(
                tools=definitions(tools), tool_choice=choice, max_tokens=MAX_TOKENS // 2
            )
            assert sum(block.type == "tool_use" for block in message.content) <= max_calls
            return check_calls(message, tools)

        return run

    single = {"disable_parallel_tool_use": True}
    kinds = [({"type": "none"}, 0), ({"type": "any", **single}, 1), ({"type": "auto", **single}, 1)]
    await run_all([one(*kind) for kind in kinds * (ROUNDS or 1)])


async def test_structured_output_is_valid(ask: Ask) -> None:
    count = 5 * ROUNDS or 4

    def one(schema: Schema) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            message = await ask(output_config={"format": {"type": "json_schema", "schema": schema}})
            (text,) = message.content
            if message.stop_reason == "end_turn":
                jsonschema.validate(json.loads(text.text), schema)
            return str(message.stop_reason)

        return run

    counts = await run_all([one(schema) for schema in islice(cycle(SCHEMAS), count)])
    assert set(counts) <= {"end_turn", "max_tokens"}
    assert counts["end_turn"]
