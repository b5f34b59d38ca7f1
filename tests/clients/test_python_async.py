"""Anthropic's asynchronous Python client against a real server with a scripted engine.

More of it is used in tests/server: http/test_sockets.py, batches/test_endpoint.py,
messages/test_threads.py.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import ThreadNotFoundError

from pensieve.engine.generation import Engine, Started, Token
from tests.clients.test_python import CALL
from tests.server.serving import KEY, app_of, listening
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client_of(engine: Engine) -> AsyncGenerator[AsyncAnthropic]:
    with anyio.fail_after(30):
        async with (
            listening(app_of(engine)) as url,
            AsyncAnthropic(
                base_url=url,
                api_key=KEY,
                max_retries=0,
                _strict_response_validation=True,
            ) as client,
        ):
            yield client


async def test_create_stream_and_count_tokens_agree() -> None:
    text = "Hello, \u2028 wörld!"
    async with client_of(ScriptedEngine([says(text)])) as client:
        message = await client.messages.create(**CALL)
        async with client.messages.stream(**CALL) as stream:
            deltas = [delta async for delta in stream.text_stream]
            streamed = await stream.get_final_message()
        events = [event.type async for event in await client.messages.create(**CALL, stream=True)]
        count = await client.messages.count_tokens(model="m", messages=CALL["messages"])
    assert "".join(deltas) == message.content[0].text == streamed.content[0].text == text
    assert message.usage == streamed.usage
    assert message.usage.output_tokens == len(text.encode()) + 1
    assert count.input_tokens == message.usage.input_tokens
    assert (events[0], events[-1]) == ("message_start", "message_stop")


async def test_concurrent_streams_are_all_answered() -> None:
    async with client_of(ScriptedEngine([says("Hello!")])) as client:
        texts: list[str] = []

        async def stream_one() -> None:
            async with client.messages.stream(**CALL) as stream:
                texts.append(await stream.get_final_text())

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(stream_one)
    assert texts == ["Hello!"] * 20


async def test_a_stream_closed_early_frees_its_slot() -> None:
    engine = ScriptedEngine([[Started(0), *map(Token, b"Hi"), anyio.Event()]])
    async with client_of(engine) as client:
        async with client.messages.stream(**CALL) as stream:
            await anext(aiter(stream.text_stream))
        await engine.left.wait()


async def test_a_cancelled_call_frees_its_slot() -> None:
    reached = anyio.Event()
    engine = ScriptedEngine([[Started(0), reached.set, anyio.Event()]])
    async with client_of(engine) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(client.messages.create, **CALL))
            await reached.wait()
            tasks.cancel_scope.cancel()
        await engine.left.wait()


async def test_a_thread_is_continued() -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris")])
    async with client_of(engine) as client:
        thread = client.beta.messages.thread(model="m", max_tokens=50)
        await thread.send({"role": "user", "content": "hello"})
        async with thread.stream({"role": "user", "content": "where?"}) as stream:
            assert await stream.get_final_text() == "Paris"
        unknown = {"type": "continue", "previous_message_id": "msg_01unknown"}
        with pytest.raises(ThreadNotFoundError):
            await client.beta.messages.create(**CALL, thread=unknown)
