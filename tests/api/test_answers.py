"""Answers, events and errors as JSON, and the accumulation of events into a message."""

import json

from pensieve.api.base import new_id
from pensieve.api.errors import ErrorBody, ErrorDetails, ErrorEnvelope
from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageStart,
    MessageStop,
    StopDelta,
    TextDelta,
)
from pensieve.api.messages.message import (
    CacheCreation,
    ClearedToolUses,
    ContextEdits,
    DeltaUsage,
    Message,
    OriginalTokens,
    TextContent,
    TokenCount,
    Usage,
)
from pensieve.api.models import Capabilities

START = MessageStart(
    message=Message(id="msg_01a", model="m", usage=Usage(input_tokens=7, output_tokens=0))
)
USAGE = DeltaUsage(input_tokens=7, output_tokens=3, cache_read_input_tokens=2)


def test_a_message_accumulates_from_its_events() -> None:
    accumulator = MessageAccumulator()
    for event in (
        START,
        ContentBlockStart(index=0, content_block=TextContent(text="")),
        ContentBlockDelta(index=0, delta=TextDelta(text="Hel")),
        ContentBlockDelta(index=0, delta=TextDelta(text="lo")),
        ContentBlockStop(index=0),
        MessageDelta(delta=StopDelta(stop_reason="end_turn"), usage=USAGE),
        MessageStop(),
    ):
        accumulator.feed(event)
    assert json.loads(accumulator.message.to_json()) == {
        "id": "msg_01a",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello", "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "context_management": None,
        "diagnostics": None,
        "usage": {
            "input_tokens": 7,
            "output_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": "standard",
        },
    }


def test_a_message_without_blocks_has_no_content() -> None:
    accumulator = MessageAccumulator()
    accumulator.feed(START)
    accumulator.feed(MessageDelta(delta=StopDelta(stop_reason="max_tokens"), usage=USAGE))
    assert accumulator.message.content == ()
    assert accumulator.message.stop_reason == "max_tokens"


def test_an_event_is_one_line_of_ascii() -> None:
    text = "a\nb\r\u2028\u2029\x85é\x00😀"
    written = ContentBlockDelta(index=0, delta=TextDelta(text=text)).to_json()
    assert written.isascii()
    assert len(written.splitlines()) == 1
    assert json.loads(written)["delta"] == {"type": "text_delta", "text": text}


def test_the_error_envelope_has_exactly_anthropics_keys() -> None:
    envelope = ErrorEnvelope(error=ErrorBody(type="api_error", message="m"), request_id="req_01x")
    assert json.loads(envelope.to_json()) == {
        "type": "error",
        "error": {"type": "api_error", "message": "m"},
        "request_id": "req_01x",
    }


def test_an_error_code_is_written_into_the_details() -> None:
    details = ErrorDetails(error_code="thread_unsupported_request")
    body = ErrorBody(type="invalid_request_error", message="m", details=details)
    assert json.loads(body.to_json())["details"] == {"error_code": "thread_unsupported_request"}


def test_identifiers_are_unique_and_in_anthropics_form() -> None:
    made = {new_id("msg") for _ in range(100)}
    assert len(made) == 100
    assert all(name.startswith("msg_01") and name[4:].isalnum() for name in made)


def test_capabilities_have_every_key_of_anthropics_client() -> None:
    from anthropic.types import ModelCapabilities

    written = json.loads(Capabilities().to_json())
    assert ModelCapabilities.model_fields.keys() == written.keys()
    assert ModelCapabilities.model_validate(written, strict=True).thinking.types.disabled.supported


def test_context_edits_are_reported_at_the_end_and_only_if_requested() -> None:
    edits = ContextEdits(
        applied_edits=(ClearedToolUses(cleared_tool_uses=2, cleared_input_tokens=30),)
    )
    end = MessageDelta(
        delta=StopDelta(stop_reason="end_turn"), usage=USAGE, context_management=edits
    )
    accumulator = MessageAccumulator()
    accumulator.feed(START)
    accumulator.feed(end)
    expected = {
        "applied_edits": [
            {
                "type": "clear_tool_uses_20250919",
                "cleared_tool_uses": 2,
                "cleared_input_tokens": 30,
            }
        ]
    }
    assert json.loads(end.to_json())["context_management"] == expected
    assert json.loads(accumulator.message.to_json())["context_management"] == expected
    plain = MessageDelta(delta=StopDelta(stop_reason="end_turn"), usage=USAGE)
    assert "context_management" not in json.loads(plain.to_json())


def test_a_token_count_mentions_context_edits_only_if_requested() -> None:
    assert json.loads(TokenCount(input_tokens=5).to_json()) == {"input_tokens": 5}
    original = OriginalTokens(original_input_tokens=9)
    assert json.loads(TokenCount(input_tokens=5, context_management=original).to_json()) == {
        "input_tokens": 5,
        "context_management": {"original_input_tokens": 9},
    }


def test_an_accumulated_message_keeps_cache_creation_by_ttl() -> None:
    usage = Usage(
        input_tokens=1,
        output_tokens=0,
        cache_creation_input_tokens=5,
        cache_creation=CacheCreation(ephemeral_1h_input_tokens=5),
    )
    accumulator = MessageAccumulator()
    accumulator.feed(MessageStart(message=Message(id="msg_01a", model="m", usage=usage)))
    accumulator.feed(MessageDelta(delta=StopDelta(stop_reason="end_turn"), usage=USAGE))
    assert accumulator.message.usage.cache_creation.ephemeral_1h_input_tokens == 5
    assert accumulator.message.usage.output_tokens == 3
