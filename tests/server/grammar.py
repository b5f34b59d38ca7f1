"""The grammar of a stream as a checker: what no client of Anthropic's may meet is an assertion here.

stream := message_start (ping | block)* message_delta message_stop, and an error may stand for any rest.
"""

from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]


def check_grammar(events: Sequence[Event]) -> None:
    """Raises AssertionError where `events` are not a whole stream."""
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
    """Owns the state of one stream."""

    def __init__(self, usage: Event) -> None:
        self._usage = usage
        self._next_index = 0
        self._open: str | None = None
        self._is_told = False
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
        assert not self._is_told
        assert event["index"] == self._next_index, "indexes are not contiguous"
        assert event["content_block"]["type"] == "text"
        assert event["content_block"]["text"] == "", "a block opens with text"
        self._open = "text_delta"

    def _content_block_delta(self, event: Event) -> None:
        assert self._open == event["delta"]["type"], "a delta of another kind, or of no open block"
        assert event["index"] == self._next_index
        assert event["delta"]["text"], "an empty delta"

    def _content_block_stop(self, event: Event) -> None:
        assert self._open is not None
        assert event["index"] == self._next_index
        self._open = None
        self._next_index += 1

    def _message_delta(self, event: Event) -> None:
        assert self._open is None, "the end comes inside a block"
        assert not self._is_told
        assert event["delta"]["stop_reason"] is not None
        usage = event["usage"]
        assert usage["output_tokens"] >= self._usage["output_tokens"], "usage is not cumulative"
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            assert usage[name] == self._usage[name]
        self._is_told = True

    def _message_stop(self, _event: Event) -> None:
        assert self._is_told, "the end without its reason"
        self.is_over = True
