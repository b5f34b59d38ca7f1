"""Anthropic's blocking Python client against a real server with a scripted engine."""

import inspect
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from tests.clients.conftest import Connect
from tests.clients.serving import CachingEngine, prompts
from tests.support.fakes import ScriptedEngine, says
from tests.support.pdfs import document_of, locked_pdf, pdf_of

HELLO = [{"role": "user", "content": "hello"}]
CALL: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": HELLO}
OLD = {"anthropic-version": "2023-06-01"}
TOOL = {"name": "get_weather", "description": "Tells it.", "input_schema": {"type": "object"}}


def test_create_returns_a_message(connect: Connect) -> None:
    message = connect(ScriptedEngine([says("Hello!")])).messages.create(**CALL)
    assert message.content[0].text == "Hello!"
    assert (message.role, message.model, message.stop_reason) == ("assistant", "m", "end_turn")
    assert message.usage.output_tokens == 7
    assert message.id.startswith("msg_01")
    assert message._request_id.startswith("req_01")


def test_create_streams_events_in_order(connect: Connect) -> None:
    with connect(ScriptedEngine([says("Hi")])).messages.create(**CALL, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_stream_yields_deltas_snapshots_and_the_message(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hé \U0001f980!")]))
    with client.messages.stream(**CALL) as stream:
        events = list(stream)
        message = stream.get_final_message()
        assert stream.get_final_text() == "Hé \U0001f980!"
        assert stream.request_id.startswith("req_01")
    texts = [event for event in events if event.type == "text"]
    assert "".join(event.text for event in texts) == "Hé \U0001f980!"
    assert texts[-1].snapshot == "Hé \U0001f980!"
    (block,) = [event for event in events if event.type == "content_block_stop"]
    assert block.content_block.text == "Hé \U0001f980!"
    assert events[-1].type == "message_stop"
    assert events[-1].message == message
    assert message.content[0].text == client.messages.create(**CALL).content[0].text


def test_an_empty_answer_has_no_content(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("")]))
    with client.messages.stream(**CALL) as stream:
        assert stream.get_final_message().content == []
    message = client.messages.create(**CALL | {"max_tokens": 0})
    assert (message.content, message.stop_reason) == ([], "max_tokens")
    assert message.usage.output_tokens == 0


@pytest.mark.parametrize(
    ("fields", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"max_tokens": 3}, "max_tokens", None),
        ({"stop_sequences": ["x", "lo w"]}, "stop_sequence", "lo w"),
        (
            {"max_tokens": 32_000, "messages": [{"role": "user", "content": "y" * 4085}]},
            "full",
            None,
        ),
    ],
)
def test_stop_reasons_are_returned(
    connect: Connect, fields: dict[str, Any], reason: str, sequence: str | None
) -> None:
    client = connect(ScriptedEngine([says("hello world")]), timeout=60)
    message = client.messages.create(**CALL | fields)
    expected = "model_context_window_exceeded" if reason == "full" else reason
    assert (message.stop_reason, message.stop_sequence) == (expected, sequence)
    with client.messages.stream(**CALL | fields) as stream:
        assert stream.get_final_message().stop_reason == expected


def test_count_tokens_equals_the_requests_usage(connect: Connect) -> None:
    client = connect(CachingEngine("ok"))
    fields = {
        "model": "m",
        "messages": HELLO,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
    }
    count = client.messages.count_tokens(**fields).input_tokens
    first, second = [client.messages.create(**fields, max_tokens=5).usage for _ in range(2)]
    assert first.cache_creation_input_tokens > 0
    assert first.cache_creation.ephemeral_5m_input_tokens == first.cache_creation_input_tokens
    assert second.cache_read_input_tokens > 0
    for usage in (first, second):
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        assert usage.input_tokens + read + written == count


# Every parameter of `messages.create` about the request, with values of the client's own tests.
ALL_PARAMETERS: dict[str, Any] = {
    "model": "m",
    "max_tokens": 1024,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hello", "citations": None}]},
        {"role": "system", "content": "the date changed"},
    ],
    "cache_control": {"type": "ephemeral", "ttl": "5m"},
    "container": "container_1",
    "diagnostics": {"previous_message_id": "msg_1"},
    "inference_geo": "us",
    "metadata": {"user_id": "13803d75-b4b5-4c3e-b2a2-6f21399b021b"},
    "output_config": {"effort": "low"},
    "service_tier": "auto",
    "speed": "standard",
    "stop_sequences": ["STOP"],
    "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "tools": [
        TOOL
        | {
            "allowed_callers": ["direct"],
            "cache_control": {"type": "ephemeral"},
            "eager_input_streaming": True,
            "input_examples": [{"foo": "bar"}],
            "strict": False,
            "type": "custom",
        }
    ],
    "user_profile_id": "user_profile_1",
    "workspace_id": "wrkspc_1",
}
CLIENT_PARAMETERS = {"self", "stream", "timeout", "extra_headers", "extra_query", "extra_body"}


def test_every_parameter_of_create_is_accepted(connect: Connect) -> None:
    parameters = set(inspect.signature(Anthropic(api_key="x").messages.create).parameters)
    assert parameters == ALL_PARAMETERS.keys() | CLIENT_PARAMETERS - {"self"}
    client = connect(ScriptedEngine([says("ok")]))
    assert client.messages.create(**ALL_PARAMETERS).content[0].text == "ok"
    with client.messages.stream(**ALL_PARAMETERS) as stream:
        assert stream.get_final_text() == "ok"


@pytest.mark.parametrize("headers", [{}, OLD, {"x-api-key": "pensieve-local-key"}])
def test_sampling_is_used_with_any_version_header(
    connect: Connect, headers: dict[str, str]
) -> None:
    engine = ScriptedEngine([says("ok")])
    extra = {"temperature": 0.25, "top_p": 0.5, "top_k": 7, "from_2031": {"a": 1}}
    client = connect(engine, default_headers=headers)
    client.messages.create(**CALL, extra_body=extra, extra_query={"beta": "true"})
    sampling = engine.generations[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.25, 0.5, 7)


def test_a_prefilled_answer_is_continued(connect: Connect) -> None:
    engine = ScriptedEngine([says(" 42.")])
    messages = [*HELLO, {"role": "assistant", "content": "The answer is "}]
    message = connect(engine).messages.create(**CALL | {"messages": messages})
    assert message.content[0].text == " 42."
    assert prompts(engine)[0].endswith("<|assistant|>\nThe answer is")


def test_raw_responses_have_ids_and_event_lines(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hi")]))
    raw = client.messages.with_raw_response.create(**CALL)
    assert raw.headers["request-id"] == raw.parse()._request_id
    assert raw.headers["content-type"] == "application/json"
    with client.messages.with_streaming_response.create(**CALL, stream=True) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = list(response.iter_lines())
    assert lines.count("event: message_stop") == 1
    assert "[DONE]" not in "".join(lines)


def test_headers_without_meaning_are_ignored(connect: Connect) -> None:
    headers = {
        "anthropic-workspace-id": "wrkspc_1",
        "anthropic-user-profile-id": "p",
        "anthropic-dangerous-direct-browser-access": "true",
        "idempotency-key": "k",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-app": "cli",
        "x-stainless-helper": "from-the-future",
    }
    client = connect(ScriptedEngine([says("ok")]), default_headers=headers)
    assert client.messages.create(**CALL).content[0].text == "ok"


def test_responses_have_no_headers_of_the_hosted_api(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("ok")]))
    raw = client.messages.with_raw_response.create(**CALL)
    assert not [name for name in raw.headers if name.startswith("anthropic-")]


def test_models_are_listed_and_retrieved(connect: Connect) -> None:
    client = connect(ScriptedEngine([[]]), name="org/tiny")
    listed = list(client.models.list(limit=1))
    assert [model.id for model in listed] == ["org/tiny", "claude-local/org/tiny"]
    assert [client.models.retrieve(model.id) for model in listed] == listed
    assert client.beta.models.retrieve("org/tiny").max_input_tokens == 4096
    assert list(client.models.list(lifecycle=["retired"])) == []


def test_a_batch_is_created_answered_and_deleted(connect: Connect) -> None:
    client = connect(ScriptedEngine([says("Hello!")]))
    batches = client.messages.batches
    params = CALL | {"metadata": {"user_id": "u"}}
    bad = CALL | {"max_tokens": -1}
    batch = batches.create(
        requests=[{"custom_id": "good", "params": params}, {"custom_id": "bad", "params": bad}]
    )
    assert batch.processing_status == "in_progress"
    while (batch := batches.retrieve(batch.id)).processing_status != "ended":
        pass
    results = {line.custom_id: line.result for line in batches.results(batch.id)}
    assert results["good"].message.content[0].text == "Hello!"
    assert results["bad"].error.error.type == "invalid_request_error"
    assert batches.cancel(batch.id).processing_status == "ended"
    assert list(batches.list(limit=1)) == [batch]
    assert batches.delete(batch.id).type == "message_batch_deleted"
    assert list(batches.list()) == []


def test_files_are_stored_referenced_and_deleted(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    client = connect(engine)
    file = client.files.upload(file=("story.md", b"Once upon", "text/markdown"))
    assert list(client.files.list()) == [client.files.retrieve_metadata(file.id)] == [file]
    assert client.files.download(file.id).read() == b"Once upon"
    document = {"type": "document", "source": {"type": "file", "file_id": file.id}}
    client.messages.create(**CALL | {"messages": [{"role": "user", "content": [document]}]})
    assert "<document>\nOnce upon\n</document>" in prompts(engine)[0]
    assert client.files.delete(file.id).type == "file_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.files.retrieve_metadata(file.id)
    with pytest.raises(anthropic.BadRequestError, match="image/png"):
        client.files.upload(file=("a.png", b"\x89PNG", "image/png"))


def test_a_pdf_is_read_also_by_its_file_id(connect: Connect) -> None:
    engine = ScriptedEngine([says("ok")])
    client = connect(engine)
    content = pdf_of("Once upon", "a time")
    file = client.files.upload(file=("story.pdf", content, "application/pdf"))
    stored = {"type": "document", "source": {"type": "file", "file_id": file.id}}
    for document in (document_of(content), stored):
        messages = [{"role": "user", "content": [document]}]
        usage = client.messages.create(**CALL | {"messages": messages}).usage
        counted = client.messages.count_tokens(model="m", messages=messages)
        assert counted.input_tokens == usage.input_tokens
    first, second = prompts(engine)
    assert first == second
    assert '<page number="1">\nOnce upon\n</page>\n<page number="2">\na time\n</page>' in first
    messages = [{"role": "user", "content": [document_of(locked_pdf())]}]
    with pytest.raises(anthropic.BadRequestError, match="The PDF specified is password protected"):
        client.messages.create(**CALL | {"messages": messages})
