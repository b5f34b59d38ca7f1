"""Chat completions through OpenAI's Python client and a scripted engine."""

import asyncio
import json
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel

from pensieve.engine.generation import Sampling
from tests.clients.openai.conftest import Connect
from tests.clients.serving import ToolCallingEngine, prompts
from tests.clients.test_python_tools import INPUT, THINKING_DIALECT, call_text
from tests.server.serving import KEY
from tests.support.fakes import ScriptedEngine, says
from tests.support.pdfs import base64_of, locked_pdf, pdf_of

CALL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
    "required": ["path", "text"],
    "additionalProperties": False,
}
WRITE: dict[str, Any] = {
    "type": "function",
    "function": {"name": "write", "description": "Write.", "parameters": SCHEMA, "strict": True},
}


def test_create_returns_a_completion(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!", cached_tokens=3)]))
    answer = client.chat.completions.create(**CALL)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("Hello!", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("path", ["", "/v1", "/v1/", "/v1/v1", "//v1"])
def test_any_base_url_is_answered(connect: Connect, path: str) -> None:
    client = connect(ScriptedEngine([says("Hi")]), path=path)
    assert client.chat.completions.create(**CALL).choices[0].message.content == "Hi"
    assert client.models.list().data[0].id == "m"


def test_stream_yields_pieces_and_usage(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    stream = client.chat.completions.create(
        **CALL, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello!"
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert (last.choices, last.usage.completion_tokens) == ([], 7)
    assert {chunk.id for chunk in [*chunks, last]} == {last.id}


def test_stream_helper_returns_the_completion(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    with client.chat.completions.stream(**CALL) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Hello!"
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_stream_helper_accumulates_calls(connect: Connect) -> None:
    client = connect(ScriptedEngine([says(f"I write.\n{call_text('write', INPUT)}")]))
    with client.chat.completions.stream(**CALL, tools=[WRITE]) as stream:
        events = [event for event in stream if event.type.startswith("tool_calls")]
        message = stream.get_final_completion().choices[0].message
    (called,) = message.tool_calls
    assert message.content.strip() == "I write."
    assert json.loads(called.function.arguments) == called.function.parsed_arguments == INPUT
    assert len(events) > 3
    assert events[-1].type == "tool_calls.function.arguments.done"


def test_a_tool_loop_ends_in_a_text(connect: Connect) -> None:
    engine = ToolCallingEngine("It is noon.", inputs={"clock": {"zone": "…"}})
    client = connect(engine)
    zone = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    tools = [{"type": "function", "function": {"name": "clock", "parameters": zone}}]
    messages: list[Any] = [
        {"role": "system", "content": "Be brief. " * 250},
        {"role": "user", "content": "What time is it in 'Rome'?"},
    ]
    for _ in range(2):
        answer = client.chat.completions.create(model="m", messages=messages, tools=tools)
        message = answer.choices[0].message
        messages.append(message)
        for called in message.tool_calls or ():
            assert json.loads(called.function.arguments) == {"zone": "Rome"}
            messages.append({"role": "tool", "tool_call_id": called.id, "content": "12:00"})
    assert (message.content, answer.choices[0].finish_reason) == ("It is noon.", "stop")
    usage = answer.usage
    assert usage.prompt_tokens_details.cached_tokens >= 0.95 * usage.prompt_tokens


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(
    "choice", ["auto", "required", "none", {"type": "function", "function": {"name": "write"}}]
)
def test_every_tool_choice_is_accepted(connect: Connect, choice: Any, parallel: bool) -> None:
    engine = ScriptedEngine([says(call_text("write", INPUT))])
    answer = connect(engine).chat.completions.create(
        **CALL, tools=[WRITE], tool_choice=choice, parallel_tool_calls=parallel
    )
    is_called = choice != "none"
    assert bool(answer.choices[0].message.tool_calls) == is_called
    assert (answer.choices[0].finish_reason == "tool_calls") == is_called
    assert engine.generations[0].grammar is not None


def test_custom_tool_gets_text(connect: Connect) -> None:
    engine = ScriptedEngine([says(call_text("patch", {"input": 'a\n"b"'}))])
    tool: Any = {"type": "custom", "custom": {"name": "patch", "description": "Edit."}}
    answer = connect(engine).chat.completions.create(**CALL, tools=[tool])
    (called,) = answer.choices[0].message.tool_calls
    assert (called.type, called.custom.name, called.custom.input) == ("custom", "patch", 'a\n"b"')


class Weather(BaseModel):
    city: str
    sky: Literal["clear", "cloudy"]


def test_parse_returns_the_value_of_a_class(connect: Connect) -> None:
    engine = ScriptedEngine([says('{"city": "Rome", "sky": "clear"}')])
    client = connect(engine)
    answer = client.chat.completions.parse(**CALL, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="Rome", sky="clear")
    assert '"sky"' in engine.generations[0].grammar.lark
    with client.chat.completions.stream(**CALL, response_format=Weather) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Weather(city="Rome", sky="clear")


def test_json_object_is_held_to_json(connect: Connect) -> None:
    engine = ScriptedEngine([says("{}")])
    answer = connect(engine).chat.completions.create(
        **CALL, response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content == "{}"
    assert engine.generations[0].grammar is not None


@pytest.mark.parametrize("stream", [True, False])
def test_thought_is_in_fields_of_its_own(connect: Connect, stream: bool) -> None:
    engine = ScriptedEngine([says("<think>\nHm.\n</think>\n\nHello.")])
    client = connect(engine, dialect=THINKING_DIALECT)
    if stream:
        with client.chat.completions.stream(**CALL) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**CALL).choices[0].message
    assert (message.content, message.reasoning_content, message.reasoning) == (
        "Hello.",
        "Hm.",
        "Hm.",
    )


def test_every_parameter_of_create_is_accepted(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    answer = connect(engine).chat.completions.create(
        **CALL,
        frequency_penalty=0.1,
        logit_bias={},
        logprobs=False,
        max_completion_tokens=20,
        max_tokens=10,
        metadata={"a": "b"},
        modalities=["text"],
        n=1,
        parallel_tool_calls=True,
        prediction={"type": "content", "content": "x"},
        presence_penalty=0.1,
        prompt_cache_key="k",
        reasoning_effort="low",
        response_format={"type": "text"},
        safety_identifier="s",
        seed=7,
        service_tier="auto",
        stop=["\n", ""],
        store=True,
        temperature=0.5,
        tool_choice="none",
        tools=[WRITE],
        top_logprobs=0,
        top_p=0.9,
        user="u",
        verbosity="low",
        web_search_options={},
        extra_body={"top_k": 5},
        extra_headers={"openai-organization": "o", "openai-project": "p", "openai-beta": "b"},
    )
    assert answer.choices[0].message.content == "ok"
    assert answer.service_tier == "default"
    (generation,) = engine.generations
    assert generation.sampling == Sampling(
        0.5, 0.9, 5, 7, frequency_penalty=0.1, presence_penalty=0.1
    )
    assert generation.max_tokens == 20


def test_text_completion_is_returned_and_streamed(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("x): pass")]))
    whole = client.completions.create(model="m", prompt="def f(")
    assert whole.choices[0].text == "x): pass"
    assert whole.usage.completion_tokens == 9
    # Its types have no null for the reason of an unfinished answer, which the hosted API sends.
    lenient = connect(ScriptedEngine([says("x): pass")]), _strict_response_validation=False)
    stream = lenient.completions.create(model="m", prompt="def f(", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "x): pass"


def test_key_is_read_from_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(connect(ScriptedEngine([says("Hi")])).base_url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAI() as client:
        assert client.chat.completions.create(**CALL).choices[0].message.content == "Hi"


def test_models_are_listed_and_retrieved(connect: Connect) -> None:
    client = connect(ScriptedEngine([[]]), name="org/tiny")
    listed = client.models.list().data
    assert [model.id for model in listed] == ["org/tiny", "claude-local/org/tiny"]
    assert [client.models.retrieve(model.id) for model in listed] == listed
    assert (listed[0].object, listed[0].owned_by) == ("model", "pensieve")
    assert listed[0].created == 1_700_000_000


def test_concurrent_streams_are_all_answered(connect: Connect) -> None:
    engine = ScriptedEngine([says("Hello!")])
    url = str(connect(engine).base_url)

    async def ask(client: AsyncOpenAI) -> str:
        async with client.chat.completions.stream(**CALL) as stream:
            return (await stream.get_final_completion()).choices[0].message.content or ""

    async def ask_all() -> list[str]:
        async with AsyncOpenAI(
            base_url=url, api_key=KEY, _strict_response_validation=True
        ) as client:
            return await asyncio.gather(*(ask(client) for _ in range(8)))

    assert asyncio.run(ask_all()) == ["Hello!"] * 8
    assert len(prompts(engine)) == 8


def test_a_pdf_is_read_in_a_message_and_in_a_result(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    data = f"data:application/pdf;base64,{base64_of(pdf_of('Once upon'))}"
    part: dict[str, Any] = {"type": "file", "file": {"filename": "a.pdf", "file_data": data}}
    function = {"name": "read", "arguments": "{}"}
    connect(engine).chat.completions.create(
        model="m",
        messages=[
            {"role": "user", "content": [part, {"type": "text", "text": "Read."}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c", "content": [part]},
        ],
    )
    (prompt,) = prompts(engine)
    page = '<document title="a.pdf">\n<page number="1">\nOnce upon\n</page>\n</document>'
    assert prompt.count(page) == 2


def test_a_pdf_that_is_not_read_is_an_error_in_a_message_and_a_note_in_a_result(
    connect: Connect,
) -> None:
    engine = ScriptedEngine([says("ok")])
    client = connect(engine)
    part: dict[str, Any] = {"type": "file", "file": {"file_data": base64_of(locked_pdf())}}
    user = {"role": "user", "content": [{"type": "text", "text": "Read."}, part]}
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=[user])
    assert caught.value.param == "messages[0].content[1].file.file_data"
    assert "The PDF specified is password protected." in caught.value.message
    call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c", "content": [part]}
    messages = [*CALL["messages"], {"role": "assistant", "tool_calls": [call]}, result]
    client.chat.completions.create(model="m", messages=messages)
    assert "The PDF specified is password protected." in prompts(engine)[0]
