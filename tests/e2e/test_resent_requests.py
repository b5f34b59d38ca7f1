"""The prompt of a resent request is processed once, during the first or after its cancellation."""

import asyncio
from collections.abc import AsyncGenerator

import anthropic
import pytest
from anthropic.types import Message, MessageParam, Usage

from tests.e2e.installation import KEY, MODEL, Installation

GREEDY = {"temperature": 0}

pytestmark = pytest.mark.anyio


def conversation(topic: str) -> list[MessageParam]:
    """Return about 600 tokens that no other test sends."""
    text = f"The {topic} stood still. The miller walked along the stream to see what had happened. "
    return [{"role": "user", "content": f"{text * 30}What stood still?"}]


@pytest.fixture
async def client(server: Installation) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=server.base_url, api_key=KEY, timeout=300
    ) as client:
        yield client


async def create(client: anthropic.AsyncAnthropic, messages: list[MessageParam]) -> Message:
    return await client.messages.create(
        model=MODEL, max_tokens=8, extra_body=GREEDY, messages=messages
    )


def new_tokens(usage: Usage) -> int:
    return usage.input_tokens + (usage.cache_creation_input_tokens or 0)


async def test_a_prompt_resent_while_the_first_runs_is_processed_once(
    client: anthropic.AsyncAnthropic,
) -> None:
    messages = conversation("mill wheel")
    first, second = await asyncio.gather(create(client, messages), create(client, messages))
    assert first.content == second.content
    whole = new_tokens(first.usage) + (first.usage.cache_read_input_tokens or 0)
    assert whole > 500
    assert new_tokens(first.usage) + new_tokens(second.usage) <= 1.1 * whole


async def test_a_prompt_resent_after_a_disconnect_continues_from_the_cache(
    client: anthropic.AsyncAnthropic,
) -> None:
    messages = conversation("church clock")
    async with client.messages.stream(
        model=MODEL, max_tokens=300, extra_body=GREEDY, messages=messages
    ) as stream:
        async for _ in stream.text_stream:
            break
    again = await create(client, messages)
    assert new_tokens(again.usage) <= 0.1 * (again.usage.cache_read_input_tokens or 0)
