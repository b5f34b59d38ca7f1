"""Message threads: created, continued once, forgotten in time; through HTTP, by the official client, and by hand."""

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
from tests.fakes import ByteTokenizer, ScriptedEngine, says
from tests.server.serving import CALL, KEY, app_of, in_memory, listening, stream_events

pytestmark = pytest.mark.anyio

CREATE = CALL | {"thread": {"type": "create"}, "system": "be brief"}


def after(message_id: str, *said: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in said]
    thread = {"type": "continue", "previous_message_id": message_id}
    return CALL | {"messages": messages, "thread": thread, **fields}


def prompts(engine: ScriptedEngine) -> list[str]:
    return [ByteTokenizer().decode(asked.prompt_tokens) for asked in engine.generations]


async def ask(client: httpx.AsyncClient, call: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/messages", json=call)


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["details"]["error_code"]


async def test_a_continued_thread_is_answered_as_the_whole_conversation_would_be() -> None:
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


async def test_a_stream_creates_and_continues_a_thread_too() -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris"), says("end")])
    async with in_memory(app_of(engine)) as client:
        response = await ask(client, CREATE | {"stream": True})
        message_id = stream_events(response.text)[0]["message"]["id"]
        response = await ask(client, after(message_id, "where?", stream=True))
        message_id = stream_events(response.text)[0]["message"]["id"]
        await ask(client, after(message_id, "why?"))
    assert "Hi<|end|>" in prompts(engine)[2]
    assert "Paris<|end|>\n<|user|>\nwhy?" in prompts(engine)[2]


async def test_the_tools_of_a_thread_hold_and_its_calls_are_answered_in_order() -> None:
    use = {"type": "tool_use", "id": "a", "name": "x", "input": {}}
    asked = [*CALL["messages"], {"role": "assistant", "content": [use]}]
    answered = {"type": "tool_result", "tool_use_id": "a", "content": "42"}
    tools = [{"name": "x", "input_schema": {}}]
    engine = ScriptedEngine([says("Hi")])
    async with in_memory(app_of(engine)) as client:
        said = [*asked, {"role": "user", "content": [answered]}]
        first = (await ask(client, CREATE | {"tools": tools, "messages": said})).json()
        wrong = after(first["id"])
        wrong["messages"] = [{"role": "user", "content": [answered]}]
        response = await ask(client, wrong)
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith("messages.0.content.0: unexpected")
        assert (await ask(client, after(first["id"], "and?"))).status_code == 200


async def test_an_answer_is_continued_once() -> None:
    engine = ScriptedEngine([says("Hi")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        await ask(client, after(first["id"], "one"))
        response = await ask(client, after(first["id"], "two"))
    assert refusal(response) == (400, "invalid_request_error", "thread_already_continued")
    assert response.headers["x-should-retry"] == "false"


async def test_an_unknown_thread_is_not_found() -> None:
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
async def test_what_holds_for_a_thread_is_not_changed_on_the_way(
    fields: dict[str, Any], named: str
) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        response = await ask(client, after(first["id"], "x", **fields))
        assert refusal(response) == (400, "invalid_request_error", "thread_fingerprint_mismatch")
        assert response.json()["error"]["message"].endswith(f"differing field(s): {named}")
        assert (await ask(client, after(first["id"], "x", max_tokens=7))).status_code == 200


@pytest.mark.parametrize(
    "fields", [{"tool_choice": {"type": "none"}}, {"cache_control": {"type": "ephemeral"}}]
)
async def test_what_the_client_documents_as_a_turns_own_may_change(fields: dict[str, Any]) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        assert (await ask(client, after(first["id"], "x", **fields))).status_code == 200


async def test_a_turn_without_anything_new_is_refused() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        response = await ask(client, after(first["id"]))
    assert response.json()["error"]["message"] == "messages: at least one message is required"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_turn_that_failed_can_be_sent_again(stream: bool) -> None:
    died = [Started(0), *map(Token, b"Par"), WorkerDiedError("died")]
    engine = ScriptedEngine([says("Hi"), died, says("Paris")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        await ask(client, after(first["id"], "where?", stream=stream))
        again = await ask(client, after(first["id"], "where?"))
    assert again.json()["content"][0]["text"] == "Paris"
    assert prompts(engine)[1] == prompts(engine)[2]


async def test_a_turn_whose_client_left_can_be_sent_again() -> None:
    said, more = anyio.Event(), anyio.Event()
    engine = ScriptedEngine([says("Hi"), [Started(0), said.set, more], says("Paris")])
    async with (
        listening(app_of(engine)) as address,
        httpx.AsyncClient(base_url=address, headers={"x-api-key": KEY}) as client,
    ):
        first = (await ask(client, CREATE)).json()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client, after(first["id"], "where?"))
            await said.wait()
            busy = await ask(client, after(first["id"], "when?"))
            tasks.cancel_scope.cancel()
        await engine.left.wait()
        again = await ask(client, after(first["id"], "where?"))
    assert refusal(busy) == (400, "invalid_request_error", "thread_continue_in_flight")
    assert again.json()["content"][0]["text"] == "Paris"


async def test_an_answer_that_went_on_from_given_words_is_kept_with_them() -> None:
    engine = ScriptedEngine([says(" 42."), says("ok")])
    begun = [*CALL["messages"], {"role": "assistant", "content": "The answer is "}]
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE | {"messages": begun})).json()
        await ask(client, after(first["id"], "sure?"))
    assert "<|assistant|>\nThe answer is 42.<|end|>\n<|user|>\nsure?" in prompts(engine)[1]


async def test_an_empty_answer_does_not_end_a_thread() -> None:
    engine = ScriptedEngine([says(""), says("ok")])
    async with in_memory(app_of(engine)) as client:
        first = (await ask(client, CREATE)).json()
        second = await ask(client, after(first["id"], "hm?"))
    assert second.status_code == 200
    assert "<|user|>\nhello\n\nhm?<|end|>" in prompts(engine)[1]


async def test_count_tokens_knows_no_thread() -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        first = (await ask(client, CREATE)).json()
        call = after(first["id"], "x")
        response = await client.post("/v1/messages/count_tokens", json=call)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "thread: Extra inputs are not permitted"


async def test_the_official_client_talks_in_threads_and_replays_what_is_gone() -> None:
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


def take(threads: Threads, call: MessagesRequest, said: Message, size_bytes: int = 100) -> None:
    with threads.turn(call, size_bytes) as turn:
        assert turn.keep is not None
        turn.keep(said)


def test_a_thread_is_kept_for_a_while_after_its_last_use() -> None:
    now = [0.0]
    threads = Threads(life_s=300, clock=lambda: now[0])
    take(threads, HELLO, answer("one"))
    now[0] = 299
    take(threads, continuing("one"), answer("two"))
    now[0] = 598
    with threads.turn(continuing("two"), 1):
        pass
    now[0] = 899
    with pytest.raises(ThreadNotFoundError), threads.turn(continuing("two"), 1):
        pass
    assert threads.kept_bytes == 0


def test_an_answer_in_the_making_is_not_forgotten_for_its_age() -> None:
    now = [0.0]
    threads = Threads(life_s=300, clock=lambda: now[0])
    take(threads, HELLO, answer("one"))
    with threads.turn(continuing("one"), 1) as turn:
        now[0] = 1000
        with pytest.raises(ThreadInFlightError), threads.turn(continuing("one"), 1):
            pass
        assert turn.keep is not None
        turn.keep(answer("two"))
    take(threads, continuing("two"), answer("three"))


def test_the_least_recently_used_thread_goes_when_there_are_too_many_bytes() -> None:
    threads = Threads(max_bytes=10_000)
    for name in ("one", "two"):
        take(threads, HELLO, answer(name), 3000)
    with threads.turn(continuing("one"), 1):
        pass
    take(threads, HELLO, answer("three"), 3000)
    with pytest.raises(ThreadNotFoundError), threads.turn(continuing("two"), 1):
        pass
    take(threads, continuing("one"), answer("four"), 1)
    assert 0 < threads.kept_bytes <= 10_000


def test_a_conversation_over_all_bounds_leaves_the_others_alone() -> None:
    threads = Threads(max_bytes=10_000)
    take(threads, HELLO, answer("one"))
    take(threads, HELLO, answer("two", "x" * 20_000))
    with pytest.raises(ThreadNotFoundError), threads.turn(continuing("two"), 1):
        pass
    take(threads, continuing("one"), answer("three"))


def test_a_continued_answer_is_remembered_without_its_conversation() -> None:
    threads = Threads()
    take(threads, HELLO, answer("one"), 50_000)
    before = threads.kept_bytes
    take(threads, continuing("one"), answer("two"), 100)
    assert threads.kept_bytes < before + 2000
    with pytest.raises(ThreadAlreadyContinuedError), threads.turn(continuing("one"), 1):
        pass


def test_an_answer_outside_of_threads_is_kept_nowhere() -> None:
    threads = Threads()
    with threads.turn(decode(MessagesRequest, CALL), 100) as turn:
        assert turn.keep is None
