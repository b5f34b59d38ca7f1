"""Responses through OpenAI's Python client and a scripted engine."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from pensieve.engine.generation import Finished, Logprobs, Started, Token
from pensieve.errors import EngineBusyError
from tests.clients.openai.conftest import Connect
from tests.clients.serving import ToolCallingEngine, prompts
from tests.clients.test_python_tools import INPUT, THINKING_DIALECT, call_text
from tests.server.openai.calls import PATCHED, SPACE, SPACED
from tests.server.serving import KEY
from tests.support.fakes import STOP_TOKEN, ScriptedEngine, says
from tests.support.pdfs import base64_of, locked_pdf, pdf_of

CALL: dict[str, Any] = {"model": "m", "input": "hello"}
WRITE: dict[str, Any] = {
    "type": "function",
    "name": "write",
    "description": "Write.",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
        "required": ["path", "text"],
        "additionalProperties": False,
    },
    "strict": True,
}
END = Finished("stop_token", 3)
THOUGHT = "<think>\nHm.\n</think>\n\nHello."


class Weather(BaseModel):
    city: str
    degrees: int


def test_create_returns_a_response(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!", cached_tokens=3)]))
    answer = client.responses.create(**CALL)
    assert (answer.output_text, answer.status, answer.model) == ("Hello!", "completed", "m")
    assert answer.usage.input_tokens_details.cached_tokens == 3
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer._request_id.startswith("req_")


def test_stream_yields_events_in_order(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    events = list(client.responses.create(**CALL, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == "Hello!"
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


def test_logprobs_are_whole_and_streamed(connect: Connect) -> None:
    top = ((STOP_TOKEN, -0.25), (0xE6, -0.5))
    script = [Started(0), *(Token(byte, Logprobs(-0.5, top)) for byte in b"Hi"), END]
    client = connect(ScriptedEngine([script]))
    call = CALL | {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    reported = client.responses.create(**call).output[0].content[0].logprobs
    assert [(one.token, one.logprob, len(one.top_logprobs)) for one in reported] == [
        ("H", -0.5, 2),
        ("i", -0.5, 2),
    ]
    events = list(client.responses.create(**call, stream=True))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [one.token for event in deltas for one in event.logprobs] == ["H", "i"]


def test_stream_helper_returns_the_response(connect: Connect) -> None:
    engine = ScriptedEngine([says(f"{THOUGHT}\n{call_text('write', INPUT)}")])
    client = connect(engine, dialect=THINKING_DIALECT)
    with client.responses.stream(**CALL, tools=[WRITE], reasoning={"summary": "auto"}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    reasoning, message, call = final.output
    assert reasoning.summary[0].text == "Hm."
    assert message.content[0].text.strip() == "Hello."
    assert (call.name, call.parsed_arguments) == ("write", INPUT)
    assert {
        "response.reasoning_summary_text.delta",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.completed",
    } <= kinds


def test_a_thought_without_a_summary_is_reasoning_text(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(THOUGHT)]), dialect=THINKING_DIALECT)
    events = list(client.responses.create(**CALL, stream=True))
    reasoning, message = events[-1].response.output
    assert (reasoning.summary, reasoning.content[0].text) == ([], "Hm.")
    assert message.content[0].text == "Hello."
    assert "response.reasoning_text.done" in {event.type for event in events}


def test_namespaced_and_custom_calls_have_their_own_names(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(f"{SPACED}\n{PATCHED}")]))
    tools: list[Any] = [SPACE | {"description": "X"}, {"type": "custom", "name": "patch"}]
    with client.responses.stream(**CALL, tools=tools) as stream:
        final = stream.until_done().get_final_response()
    _, first, second, third = final.output
    assert {(call.name, call.namespace) for call in (first, second)} == {("find", "mcp__x")}
    assert json.loads(first.arguments) == {"what": "é"}
    assert second.arguments == "{}"
    assert (third.type, third.name, third.input) == ("custom_tool_call", "patch", "a\nb")


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_tool_loop_ends_in_a_text(connect: Connect, is_stored: bool) -> None:
    engine = ToolCallingEngine("It is noon.", inputs={"clock": {"zone": "…"}})
    client = connect(engine)
    zone = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    tools: list[Any] = [
        {"type": "function", "name": "clock", "parameters": zone, "strict": False},
        {"type": "web_search"},
    ]
    items: list[Any] = [{"role": "user", "content": "What time is it in 'Rome'?"}]
    options: dict[str, Any] = {"store": is_stored, "include": ["reasoning.encrypted_content"]}
    options["instructions"] = "Be brief. " * 250
    first = client.responses.create(model="m", input=items, tools=tools, **options)
    (call,) = first.output
    assert json.loads(call.arguments) == {"zone": "Rome"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}
    if is_stored:
        options["previous_response_id"] = first.id
        items = [result]
    else:
        items += [*first.output, result]
    second = client.responses.create(model="m", input=items, tools=tools, **options)
    assert (second.output_text, second.status) == ("It is noon.", "completed")
    usage = second.usage
    assert usage.input_tokens_details.cached_tokens >= 0.95 * usage.input_tokens


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(
    "choice",
    [
        *("auto", "required", "none", {"type": "function", "name": "write"}),
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "write"}],
        },
    ],
)
def test_every_tool_choice_is_accepted(connect: Connect, choice: Any, parallel: bool) -> None:
    engine = ScriptedEngine([says(call_text("write", INPUT))])
    answer = connect(engine).responses.create(
        **CALL, tools=[WRITE], tool_choice=choice, parallel_tool_calls=parallel
    )
    kinds = {item.type for item in answer.output}
    assert kinds == ({"message"} if choice == "none" else {"function_call"})
    assert engine.generations[0].grammar is not None


def test_parse_returns_an_instance(connect: Connect) -> None:
    engine = ScriptedEngine([says('{"city": "Rome", "degrees": 21}')])
    parsed = connect(engine).responses.parse(**CALL, text_format=Weather).output_parsed
    assert parsed == Weather(city="Rome", degrees=21)
    assert '"degrees"' in engine.generations[0].grammar.lark


def test_stream_helper_parses_an_instance(connect: Connect) -> None:
    engine = ScriptedEngine([says('{"city": "Rome", "degrees": 21}')])
    with connect(engine).responses.stream(**CALL, text_format=Weather) as stream:
        final = stream.until_done().get_final_response()
    assert final.output_parsed == Weather(city="Rome", degrees=21)


def test_a_cut_response_is_incomplete(connect: Connect) -> None:
    answer = connect(ScriptedEngine([says("Hello!")])).responses.create(**CALL, max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "Hel"


def test_a_conversation_is_continued_by_ids(connect: Connect) -> None:
    engine = ScriptedEngine([says(THOUGHT), says("Fine.")])
    client = connect(engine, dialect=THINKING_DIALECT)
    first = client.responses.create(**CALL)
    second = client.responses.create(
        model="m", input="How are you?", previous_response_id=first.id, instructions="Be brief."
    )
    assert second.previous_response_id == first.id
    client.responses.create(
        model="m",
        input=[
            {"role": "user", "content": "hello"},
            *({"type": "item_reference", "id": item.id} for item in first.output),
            {"role": "user", "content": "How are you?"},
        ],
    )
    continued, referred = prompts(engine)[1:]
    assert continued == "<|system|>\nBe brief.<|end|>\n" + referred
    assert "Hello." in referred


def test_stored_responses_are_retrieved_listed_and_deleted(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    created = client.responses.create(**CALL)
    assert client.responses.retrieve(created.id) == created
    (item,) = client.responses.input_items.list(created.id)
    assert (item.role, item.content[0].text) == ("user", "hello")
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(created.id)
    client.responses.delete(created.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(created.id)


def test_input_items_are_paged(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    items = [{"role": "user", "content": str(number)} for number in range(7)]
    created = client.responses.create(model="m", input=items)
    listed = client.responses.input_items.list(created.id, limit=3, order="asc")
    assert [item.content[0].text for item in listed] == [str(number) for number in range(7)]


def test_input_tokens_are_counted(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    counted = client.responses.input_tokens.count(**CALL, tools=[WRITE])
    created = client.responses.create(**CALL, tools=[WRITE])
    assert counted.input_tokens == created.usage.input_tokens


def test_every_parameter_of_create_is_accepted(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    answer = connect(engine).responses.create(
        **CALL,
        background=False,
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        instructions="Be brief.",
        max_output_tokens=20,
        max_tool_calls=3,
        metadata={"a": "b"},
        parallel_tool_calls=True,
        prompt_cache_key="k",
        reasoning={"effort": "low", "summary": "auto"},
        safety_identifier="s",
        service_tier="auto",
        store=True,
        stream_options={"include_obfuscation": True},
        temperature=0.5,
        text={"format": {"type": "text"}, "verbosity": "low"},
        tool_choice="auto",
        tools=[WRITE, {"type": "web_search"}],
        top_logprobs=0,
        top_p=0.9,
        truncation="auto",
        user="u",
    )
    assert answer.output_text == "ok"
    assert (answer.metadata, answer.temperature, answer.reasoning.effort) == (
        {"a": "b"},
        0.5,
        "low",
    )
    assert [tool.type for tool in answer.tools] == ["function", "web_search"]


@pytest.mark.parametrize(
    ("fields", "kind", "code", "param"),
    [
        (
            {"previous_response_id": "resp_none"},
            openai.BadRequestError,
            "previous_response_not_found",
            "previous_response_id",
        ),
        ({"input": "x" * 9000}, openai.BadRequestError, "context_length_exceeded", "input"),
        (
            {"input": [{"type": "item_reference", "id": "rs_none"}]},
            openai.NotFoundError,
            "not_found",
            None,
        ),
        ({"background": True}, openai.BadRequestError, None, "background"),
    ],
)
def test_errors_have_their_class_code_and_param(
    connect: Connect, fields: dict[str, Any], kind: type[Exception], code: str, param: str
) -> None:
    with pytest.raises(kind) as refusal:
        connect(ScriptedEngine([says("no")])).responses.create(**CALL | fields)
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_a_busy_engine_is_retried(connect: Connect) -> None:
    engine = ScriptedEngine([says("no")], refusal=EngineBusyError("Overloaded"))
    with pytest.raises(openai.InternalServerError) as refusal:
        connect(engine).responses.create(**CALL)
    assert refusal.value.code == "server_is_overloaded"


def test_concurrent_streams_are_all_answered(connect: Connect) -> None:
    url = str(connect(ScriptedEngine([says("Hello!")])).base_url)

    async def ask(client: AsyncOpenAI) -> str:
        async with client.responses.stream(**CALL) as stream:
            return (await stream.get_final_response()).output_text

    async def ask_all() -> list[str]:
        async with AsyncOpenAI(
            base_url=url, api_key=KEY, _strict_response_validation=True
        ) as client:
            return await asyncio.gather(*(ask(client) for _ in range(8)))

    assert asyncio.run(ask_all()) == ["Hello!"] * 8


def test_a_pdf_is_read_in_a_message_and_in_a_result(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    client = connect(engine)
    data = f"data:application/pdf;base64,{base64_of(pdf_of('Once upon'))}"
    part: dict[str, Any] = {"type": "input_file", "filename": "a.pdf", "file_data": data}
    items: list[Any] = [
        {"role": "user", "content": [part, {"type": "input_text", "text": "Read."}]},
        {"type": "function_call", "call_id": "c", "name": "read", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [part]},
    ]
    answer = client.responses.create(model="m", input=items)
    (prompt,) = prompts(engine)
    page = '<document title="a.pdf">\n<page number="1">\nOnce upon\n</page>\n</document>'
    assert prompt.count(page) == 2
    counted = client.responses.input_tokens.count(model="m", input=items)
    assert counted.input_tokens == answer.usage.input_tokens
    client.responses.create(model="m", input="More.", previous_response_id=answer.id)
    assert prompts(engine)[1].count(page) == 2


def test_a_pdf_that_is_not_read_is_an_error_by_its_path(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("no")]))
    part: dict[str, Any] = {"type": "input_file", "file_data": base64_of(locked_pdf())}
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="m", input=[{"role": "user", "content": [part]}])
    assert caught.value.param == "input[0].content[0].file_data"
    assert "The PDF specified is password protected." in caught.value.message
