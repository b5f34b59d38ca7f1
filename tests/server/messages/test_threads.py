"""Message threads over HTTP, by the official client and directly: creation, use, eviction."""

from typing import Any

import anyio
import httpx
import pytest
from anthropic import AsyncAnthropic

from pensieve.api.messages.message import Message, TextContent, Usage
from pensieve.api.messages.request import MessagesRequest, decode
from pensieve.engine.generation import Started, Token
from pensieve.errors import (
    ThreadAlreadyContinuedError,
    ThreadInFlightError,
    ThreadNotFoundError,
    WorkerDiedError,
)
from pensieve.server.messages.threads import Threads
from tests.server.serving import CALL, KEY, app_of, in_memory, listening, stream_events
from tests.support.fakes import ByteTokenizer, ScriptedEngine, says

pytestmark = pytest.mark.anyio

CREATE = CALL | {"thread": {"type": "create"}, "system": "be brief"}


def after(message_id: str, *texts: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts]
    thread = {"type": "continue", "previous_message_id": message_id}
    return CALL | {"messages": messages, "thread": thread, **fields}


def prompts(engine: ScriptedEngine) -> list[str]:
    return [ByteTokenizer().decode(generation.prompt_tokens) for generation in engine.generations]


async def ask(client: httpx.AsyncClient, call: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/messages", json=call)


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["details"]["error_code"]


async def test_continued_thread_equals_whole_conversation() -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris"), says("again")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        second = (await ask(client, after(first["id"], "where?"))).json()
        third = (await ask(client, after(second["id"], "why?"))).json()
        turns = [("user", "hello"), ("assistant", "Hi"), ("user", "where?")]
        turns += [("assistant", "Paris"), ("user", "why?")]
        whole = [{"role": role, "content": content} for role, content in turns]
        await ask(client, CALL | {"system": "be brief", "messages": whole})
    assert third["content"][0]["text"] == "again"
    assert third.keys() == first.keys()
    assert prompts(engine)[2] == prompts(engine)[3]
    assert len({first["id"], second["id"], third["id"]}) == 3


async def test_stream_creates_and_continues_a_thread() -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris"), says("end")])
    async with in_memory(app_of(engine)) as client:
        response = await ask(client, CREATE | {"stream": True})
        message_id = stream_events(response.text)[0]["message"]["id"]
        response = await ask(client, after(message_id, "where?", stream=True))
        message_id = stream_events(response.text)[0]["message"]["id"]
        await ask(client, after(message_id, "why?"))
    assert "Hi<|end|>" in prompts(engine)[2]
    assert "Paris<|end|>\n<|user|>\nwhy?" in prompts(engine)[2]


async def test_thread_reuses_tools_and_checks_order_of_results() -> None:
    use = {"type": "tool_use", "id": "a", "name": "x", "input": {}}
    messages = [*CALL["messages"], {"role": "assistant", "content": [use]}]
    answered = {"type": "tool_result", "tool_use_id": "a", "content": "42"}
    tools = [{"name": "x", "input_schema": {}}]
    engine = ScriptedEngine([says("Hi")])
    async with in_memory(app_of(engine)) as client:
        messages = [*messages, {"role": "user", "content": [answered]}]
        first = (await ask(client, CREATE | {"tools": tools, "messages": messages})).json()
        wrong = after(first["id"])
        wrong["messages"] = [{"role": "user", "content": [answered]}]
        response = await ask(client, wrong)
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith("messages.0.content.0: unexpected")
        assert (await ask(client, after(first["id"], "and?"))).status_code == 200


async def test_answer_can_be_continued_once() -> None:
    engine = ScriptedEngine([says("Hi")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        await ask(client, after(first["id"], "one"))
        response = await ask(client, after(first["id"], "two"))
    assert refusal(response) == (400, "invalid_request_error", "thread_already_continued")
    assert response.headers["x-should-retry"] == "false"


async def test_unknown_thread_is_not_found() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        plain = (await ask(client, CALL)).json()
        for message_id in ("msg_01nobody", plain["id"]):
            response = await ask(client, after(message_id, "x"))
            assert refusal(response) == (404, "not_found_error", "thread_not_found")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "other"}, "model"),
        ({"thinking": {"type": "adaptive"}}, "thinking"),
        ({"output_config": {"effort": "low"}}, "output_config"),
        ({"system": "be brief"}, "system"),
        ({"system": "s", "tools": [{"name": "x", "input_schema": {}}]}, "system, tools"),
    ],
)
async def test_fixed_fields_of_a_thread_cannot_change(fields: dict[str, Any], named: str) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        response = await ask(client, after(first["id"], "x", **fields))
        assert refusal(response) == (400, "invalid_request_error", "thread_fingerprint_mismatch")
        assert response.json()["error"]["message"].endswith(f"differing field(s): {named}")
        assert (await ask(client, after(first["id"], "x", max_tokens=7))).status_code == 200


@pytest.mark.parametrize(
    "fields", [{"tool_choice": {"type": "none"}}, {"cache_control": {"type": "ephemeral"}}]
)
async def test_fields_of_a_turn_may_change(fields: dict[str, Any]) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        assert (await ask(client, after(first["id"], "x", **fields))).status_code == 200


async def test_turn_without_new_messages_is_refused() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        response = await ask(client, after(first["id"]))
    assert response.json()["error"]["message"] == "messages: at least one message is required"


@pytest.mark.parametrize("stream", [True, False])
async def test_failed_turn_can_be_retried(stream: bool) -> None:
    died = [Started(0), *map(Token, b"Par"), WorkerDiedError("died")]
    engine = ScriptedEngine([says("Hi"), died, says("Paris")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        await ask(client, after(first["id"], "where?", stream=stream))
        again = await ask(client, after(first["id"], "where?"))
    assert again.json()["content"][0]["text"] == "Paris"
    assert prompts(engine)[1] == prompts(engine)[2]


async def test_disconnected_turn_can_be_retried() -> None:
    started, more = anyio.Event(), anyio.Event()
    engine = ScriptedEngine([says("Hi"), [Started(0), started.set, more], says("Paris")])
    async with (
        listening(app_of(engine)) as address,
        httpx.AsyncClient(base_url=address, headers={"x-api-key": KEY}) as client,
    ):
        first = (await ask(client, CREATE)).json()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client, after(first["id"], "where?"))
            await started.wait()
            busy = await ask(client, after(first["id"], "when?"))
            tasks.cancel_scope.cancel()
        await engine.left.wait()
        again = await ask(client, after(first["id"], "where?"))
    assert refusal(busy) == (400, "invalid_request_error", "thread_continue_in_flight")
    assert again.json()["content"][0]["text"] == "Paris"


async def test_answer_to_prefill_is_stored_with_it() -> None:
    engine = ScriptedEngine([says(" 42."), says("ok")])
    begun = [*CALL["messages"], {"role": "assistant", "content": "The answer is "}]
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE | {"messages": begun})).json()
        await ask(client, after(first["id"], "sure?"))
    assert "<|assistant|>\nThe answer is 42.<|end|>\n<|user|>\nsure?" in prompts(engine)[1]


async def test_empty_answer_does_not_end_a_thread() -> None:
    engine = ScriptedEngine([says(""), says("ok")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        second = await ask(client, after(first["id"], "hm?"))
    assert second.status_code == 200
    assert "<|user|>\nhello\n\nhm?<|end|>" in prompts(engine)[1]


async def test_count_tokens_ignores_threads() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        call = after(first["id"], "x")
        response = await client.post("/v1/messages/count_tokens", json=call)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "thread: Extra inputs are not permitted"


async def test_official_client_replays_an_evicted_thread() -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris"), says("Because"), says("Again")])
    async with (
        listening(app_of(engine)) as address,
        AsyncAnthropic(base_url=address, api_key=KEY) as client,
    ):
        thread = client.beta.messages.thread(model="m", max_tokens=50, system="be brief")
        await thread.send({"role": "user", "content": "hello"})
        reply = await thread.send({"role": "user", "content": "where?"})
        fork = thread.fork()
        await thread.send({"role": "user", "content": "why?"})
        replayed = await fork.send({"role": "user", "content": "why?"})
    assert reply.content[0].text == "Paris"
    assert replayed.content[0].text == "Again"
    assert prompts(engine)[2] == prompts(engine)[3]


HELLO = decode(MessagesRequest, CREATE)


def continuing(message_id: str) -> MessagesRequest:
    return decode(MessagesRequest, after(message_id, "more"))


def answer(message_id: str, text: str = "ok") -> Message:
    usage = Usage(input_tokens=1, output_tokens=1)
    return Message(id=message_id, model="any", usage=usage, content=(TextContent(text=text),))


def take(threads: Threads, call: MessagesRequest, message: Message, size_bytes: int = 100) -> None:
    with threads.join(call, size_bytes) as turn:
        assert turn.on_answer is not None
        turn.on_answer(message)


def test_thread_expires_after_its_last_use() -> None:
    now = [0.0]
    threads = Threads(lifetime_s=300, clock=lambda: now[0])
    take(threads, HELLO, answer("one"))
    now[0] = 299
    take(threads, continuing("one"), answer("two"))
    now[0] = 598
    with threads.join(continuing("two"), 1):
        pass
    now[0] = 899
    with pytest.raises(ThreadNotFoundError), threads.join(continuing("two"), 1):
        pass
    assert threads.stored_bytes == 0


def test_thread_in_flight_does_not_expire() -> None:
    now = [0.0]
    threads = Threads(lifetime_s=300, clock=lambda: now[0])
    take(threads, HELLO, answer("one"))
    with threads.join(continuing("one"), 1) as turn:
        now[0] = 1000
        with pytest.raises(ThreadInFlightError), threads.join(continuing("one"), 1):
            pass
        assert turn.on_answer is not None
        turn.on_answer(answer("two"))
    take(threads, continuing("two"), answer("three"))


def test_least_recently_used_thread_is_evicted_over_byte_limit() -> None:
    threads = Threads(max_bytes=10_000)
    for name in ("one", "two"):
        take(threads, HELLO, answer(name), 3000)
    with threads.join(continuing("one"), 1):
        pass
    take(threads, HELLO, answer("three"), 3000)
    with pytest.raises(ThreadNotFoundError), threads.join(continuing("two"), 1):
        pass
    take(threads, continuing("one"), answer("four"), 1)
    assert 0 < threads.stored_bytes <= 10_000


def test_conversation_over_limit_evicts_no_other() -> None:
    threads = Threads(max_bytes=10_000)
    take(threads, HELLO, answer("one"))
    take(threads, HELLO, answer("two", "x" * 20_000))
    with pytest.raises(ThreadNotFoundError), threads.join(continuing("two"), 1):
        pass
    take(threads, continuing("one"), answer("three"))


def test_continued_answer_is_stored_without_its_conversation() -> None:
    threads = Threads()
    take(threads, HELLO, answer("one"), 50_000)
    before = threads.stored_bytes
    take(threads, continuing("one"), answer("two"), 100)
    assert threads.stored_bytes < before + 2000
    with pytest.raises(ThreadAlreadyContinuedError), threads.join(continuing("one"), 1):
        pass


def test_answer_without_thread_is_not_stored() -> None:
    threads = Threads()
    with threads.join(decode(MessagesRequest, CALL), 100) as turn:
        assert turn.on_answer is None
