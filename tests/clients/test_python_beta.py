"""The beta namespace of Anthropic's Python client against a real server with a scripted engine.

Threads, the tool runner with a model that only writes text, context edits, and every parameter.
"""

import inspect
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AnthropicError, beta_tool
from anthropic.types import (
    ThreadAlreadyContinuedError,
    ThreadFingerprintMismatchError,
    ThreadNotFoundError,
)

from pensieve.engine.generation import Started, Token
from pensieve.errors import WorkerDiedError
from tests.clients.conftest import Connect
from tests.clients.serving import prompts
from tests.clients.test_python import ALL_PARAMETERS, CALL, CLIENT_PARAMETERS, HELLO
from tests.support.fakes import ScriptedEngine, says

MCP_SERVER = {"type": "url", "name": "s", "url": "https://mcp.test"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "x"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a very old result " * 9}
CONVERSATION = [
    *HELLO,
    {"role": "assistant", "content": [USE]},
    {"role": "user", "content": [RESULT]},
]
CLEAR = {
    "type": "clear_tool_uses_20250919",
    "trigger": {"type": "tool_uses", "value": 0},
    "keep": {"type": "tool_uses", "value": 0},
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@beta_tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    raise AssertionError(f"called for {city}")


REFUSED_FIELDS = {"compaction"}
BETA_FIELDS: dict[str, Any] = {
    "betas": ["context-management-2025-06-27", "unknown-2031-01-01"],
    "billing_policy": {"type": "billing_policy", "bill_to": "self"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}, CLEAR]},
    "fallback_credit_token": "x",
    "fallbacks": [{"model": "other"}],
    "mcp_servers": [],
    "thread": {"type": "create"},
}


def test_every_parameter_of_create_except_compaction_is_accepted(connect: Connect) -> None:
    parameters = set(inspect.signature(Anthropic(api_key="x").beta.messages.create).parameters)
    assert (
        parameters
        == ALL_PARAMETERS.keys()
        | BETA_FIELDS.keys()
        | REFUSED_FIELDS
        | CLIENT_PARAMETERS - {"self"}
    )
    client = connect(ScriptedEngine([says("ok")]))
    message = client.beta.messages.create(**ALL_PARAMETERS | BETA_FIELDS)
    assert message.content[0].text == "ok"
    with client.beta.messages.stream(**ALL_PARAMETERS | BETA_FIELDS) as stream:
        assert stream.get_final_text() == "ok"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compaction": {"type": "summarize"}}, "compaction: Extra inputs are not permitted"),
        (
            {"mcp_servers": [MCP_SERVER]},
            "mcp_servers: MCP servers are not reached from this server",
        ),
    ],
)
def test_fields_that_cannot_be_ignored_are_refused(
    connect: Connect, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=message):
        connect(ScriptedEngine([says("no")])).beta.messages.create(**CALL | fields)


def test_context_edits_are_applied_and_reported(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    client = connect(engine)
    fields = {"messages": CONVERSATION, "context_management": {"edits": [CLEAR]}}
    message = client.beta.messages.create(**CALL | fields)
    (edit,) = message.context_management.applied_edits
    assert (edit.type, edit.cleared_tool_uses) == ("clear_tool_uses_20250919", 1)
    assert "a very old result" not in prompts(engine)[0]
    with client.beta.messages.stream(**CALL | fields) as stream:
        assert stream.get_final_message().context_management == message.context_management
    count = client.beta.messages.count_tokens(model="m", **fields)
    assert count.input_tokens == message.usage.input_tokens
    before = count.context_management.original_input_tokens
    assert before - count.input_tokens == edit.cleared_input_tokens > 0


def test_a_thread_sends_new_messages_and_is_answered_as_a_whole(connect: Connect) -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris"), says("Because"), says("again")])
    client = connect(engine)
    thread = client.beta.messages.thread(model="m", max_tokens=50, system="be brief")
    first = thread.send(user("hello"))
    assert thread.previous_message_id == first.id
    with thread.stream(user("where?"), max_tokens=20) as stream:
        assert stream.get_final_text() == "Paris"
    assert thread.send(user("why?")).content[0].text == "Because"
    client.beta.messages.create(
        model="m", max_tokens=50, system="be brief", messages=thread.messages[:5]
    )
    assert prompts(engine)[2] == prompts(engine)[3]
    with pytest.raises(AnthropicError, match="Cannot change `system`"):
        thread.send(user("x"), system="be long")


def test_a_thread_continued_by_another_is_replayed(connect: Connect) -> None:
    engine = ScriptedEngine([says("Hi"), says("one"), says("two")])
    client = connect(engine)
    thread = client.beta.messages.thread(model="m", max_tokens=50)
    first = thread.send(user("hello"))
    other = {"type": "continue", "previous_message_id": first.id}
    call = {"model": "m", "max_tokens": 50, "messages": [user("mine")], "thread": other}
    client.beta.messages.create(**call)
    with pytest.raises(ThreadAlreadyContinuedError):
        client.beta.messages.create(**call)
    assert thread.send(user("yours")).content[0].text == "two"
    assert "mine" not in prompts(engine)[2]
    assert "hello" in prompts(engine)[2]


def test_thread_errors_have_their_own_types(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hi")]))
    unknown = {"type": "continue", "previous_message_id": "msg_01unknown"}
    with pytest.raises(ThreadNotFoundError):
        client.beta.messages.create(**CALL, thread=unknown)
    first = client.beta.messages.create(**CALL, thread={"type": "create"})
    existing = {"type": "continue", "previous_message_id": first.id}
    with pytest.raises(ThreadFingerprintMismatchError, match="model"):
        client.beta.messages.create(**CALL | {"model": "other"}, thread=existing)


def test_a_turn_with_a_broken_stream_is_sent_again(connect: Connect) -> None:
    broken = [Started(0), *map(Token, b"Pa"), WorkerDiedError("The engine worker ended.")]
    engine = ScriptedEngine([says("Hi"), broken, says("Paris")])
    thread = connect(engine).beta.messages.thread(model="m", max_tokens=50)
    thread.send(user("hello"))
    with pytest.raises(anthropic.APIStatusError), thread.stream(user("where?")) as stream:
        stream.until_done()
    assert thread.send().content[0].text == "Paris"
    assert prompts(engine)[1] == prompts(engine)[2]


@pytest.mark.parametrize("thread", [None, False])
def test_the_tool_runner_ends_without_a_tool_call(connect: Connect, thread: bool | None) -> None:
    client = connect(ScriptedEngine([says("Sunny, I guess.")]))
    runner = client.beta.messages.tool_runner(**CALL, tools=[get_weather], thread=thread)
    assert [message.content[0].text for message in runner] == ["Sunny, I guess."]


def test_the_tool_runner_continues_a_thread(connect: Connect) -> None:
    engine = ScriptedEngine([says("Hi"), says("Paris")])
    messages = connect(engine).beta.messages
    thread = messages.thread(model="m", max_tokens=50, tools=[get_weather])
    thread.send(user("hello"))
    thread.append(user("where?"))
    assert thread.tool_runner(max_iterations=3).until_done().content[0].text == "Paris"
    assert len(engine.generations) == 2
    assert (
        "<|user|>\nhello<|end|>\n<|assistant|>\nHi<|end|>\n<|user|>\nwhere?" in prompts(engine)[1]
    )


def test_the_tool_runner_streams(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hi")]))
    runner = client.beta.messages.tool_runner(**CALL, tools=[get_weather], stream=True)
    texts = [event.text for stream in runner for event in stream if event.type == "text"]
    assert "".join(texts) == "Hi"


def test_batches_and_models_are_in_beta_too(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("ok")]))
    batches = client.beta.messages.batches
    batch = batches.create(requests=[{"custom_id": "a", "params": CALL}])
    while batches.retrieve(batch.id).processing_status != "ended":
        pass
    (line,) = batches.results(batch.id)
    assert line.result.message.content[0].text == "ok"
    assert [model.id for model in client.beta.models.list()] == ["m", "claude-local/m"]
