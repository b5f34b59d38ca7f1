"""A request that is sent again unchanged, while the first one runs or after its client disconnected, is
processed only once.
"""

import asyncio
from collections.abc import AsyncGenerator

import anthropic
import pytest
from anthropic.types import Message, MessageParam, Usage

from tests.e2e.conftest import KEY, MODEL, Journey

GREEDY = {"temperature": 0}

pytestmark = pytest.mark.anyio


def conversation(topic: str) -> list[MessageParam]:
    """Some 600 tokens that no other test has asked."""
    said = (
        f"The {topic} stood still. The miller walked along the stream to see what had become of it. "
        * 30
    )
    return [{"role": "user", "content": f"{said}What stood still?"}]


@pytest.fixture
async def client(server: Journey) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=server.base_url, api_key=KEY, timeout=300
    ) as client:
        yield client


async def asked(client: anthropic.AsyncAnthropic, messages: list[MessageParam]) -> Message:
    return await client.messages.create(
        model=MODEL, max_tokens=8, extra_body=GREEDY, messages=messages
    )


def new_tokens(usage: Usage) -> int:
    return usage.input_tokens + (usage.cache_creation_input_tokens or 0)


async def test_sent_again_while_the_first_runs_its_prompt_is_processed_once(
    client: anthropic.AsyncAnthropic,
) -> None:
    messages = conversation("mill wheel")
    first, second = await asyncio.gather(asked(client, messages), asked(client, messages))
    assert first.content == second.content
    whole = new_tokens(first.usage) + (first.usage.cache_read_input_tokens or 0)
    assert whole > 500
    assert new_tokens(first.usage) + new_tokens(second.usage) <= 1.1 * whole


async def test_sent_again_after_its_client_has_left_it_goes_on_from_there(
    client: anthropic.AsyncAnthropic,
) -> None:
    messages = conversation("church clock")
    async with client.messages.stream(
        model=MODEL, max_tokens=300, extra_body=GREEDY, messages=messages
    ) as stream:
        async for _ in stream.text_stream:
            break
    again = await asked(client, messages)
    assert new_tokens(again.usage) <= 0.1 * (again.usage.cache_read_input_tokens or 0)
