"""Checks a stream against the grammar that Anthropic's clients expect.

stream := message_start (ping | block)* message_delta message_stop; an error may replace any
remaining part.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

Event = dict[str, Any]

EMPTY = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}
DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}


def check_grammar(events: Sequence[Event]) -> None:
    """Raise AssertionError unless `events` are a whole stream."""
    first, *rest = events
    if first["type"] == "error":
        assert not rest
        return
    assert first["type"] == "message_start"
    assert first["message"]["content"] == []
    assert first["message"]["stop_reason"] is None
    walk = _Walk(first["message"]["usage"])
    for event in rest:
        assert not walk.is_over, f"{event['type']} after the end"
        walk.take(event)
    assert walk.is_over, "the stream has no end"


class _Walk:
    """The state of one stream."""

    def __init__(self, usage: Event) -> None:
        self._usage = usage
        self._next_index = 0
        self._open: str | None = None
        self._content = ""
        self._ids: set[str] = set()
        self._is_signed = False
        self._has_delta = False
        self.is_over = False

    def take(self, event: Event) -> None:
        getattr(self, f"_{event['type']}")(event)

    def _ping(self, _event: Event) -> None:
        pass

    def _error(self, event: Event) -> None:
        assert event["request_id"].startswith("req_")
        self.is_over = True

    def _content_block_start(self, event: Event) -> None:
        assert self._open is None, "two blocks are open"
        assert not self._has_delta
        assert event["index"] == self._next_index, "indexes are not contiguous"
        block = event["content_block"]
        self._open = block["type"]
        self._content = ""
        empty = {name: value for name, value in EMPTY[self._open].items() if block[name] != value}
        assert not empty, "a block opens with content"
        if self._open == "tool_use":
            assert re.fullmatch("toolu_01[0-9A-Za-z]{22}", block["id"])
            assert block["id"] not in self._ids, "two tool uses have one id"
            self._ids.add(block["id"])

    def _content_block_delta(self, event: Event) -> None:
        assert self._open is not None, "a delta of no open block"
        delta = event["delta"]
        assert delta["type"] in DELTAS[self._open], "a delta of another kind"
        assert event["index"] == self._next_index
        (piece,) = (value for name, value in delta.items() if name != "type")
        assert piece, "an empty delta"
        assert not self._is_signed, "a signature is not the last delta"
        self._is_signed = delta["type"] == "signature_delta"
        self._content += piece
        if self._open == "tool_use":
            from_json(self._content, allow_partial=True)

    def _content_block_stop(self, event: Event) -> None:
        assert self._open is not None
        assert event["index"] == self._next_index
        assert self._is_signed == (self._open == "thinking"), "a thought without its signature"
        self._open = None
        self._is_signed = False
        self._next_index += 1

    def _message_delta(self, event: Event) -> None:
        assert self._open is None, "the end comes inside a block"
        assert not self._has_delta
        assert event["delta"]["stop_reason"] is not None
        usage = event["usage"]
        assert usage["output_tokens"] >= self._usage["output_tokens"], "usage is not cumulative"
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            assert usage[name] == self._usage[name]
        self._has_delta = True

    def _message_stop(self, _event: Event) -> None:
        assert self._has_delta, "the end without its reason"
        self.is_over = True
