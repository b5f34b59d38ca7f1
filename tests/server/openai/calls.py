"""Chat requests of the tests, and how their clients read a stream."""

import json
from typing import Any

CALL: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
STREAM = CALL | {"stream": True}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "parameters": {"type": "object", "properties": {"zone": {}}},
    },
}
PATCH = {"type": "custom", "custom": {"name": "patch"}}


def chunks_of(text: str) -> list[dict[str, Any]]:
    """Return the chunks of a whole stream; check its end and that all else is comments."""
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    data = [event for event in events if event != ": keep-alive"]
    assert all(event.startswith("data: ") and "\n" not in event for event in data)
    return [json.loads(event.removeprefix("data: ")) for event in data]


# Responses.

RESPOND: dict[str, Any] = {"model": "any", "input": "hello"}
RESPOND_STREAM = RESPOND | {"stream": True}
SPACE = {
    "type": "namespace",
    "name": "mcp__x",
    "tools": [
        {
            "type": "function",
            "name": "find",
            "parameters": {"type": "object", "properties": {"what": {}}},
        }
    ],
}
SPACED = (
    'Let me look.\n<tool_call>\n{"name": "mcp__x__find", "arguments": {"what": "\u00e9"}}'
    "\n</tool_call>"
    '\n<tool_call>\n{"name": "mcp__x__find", "arguments": {}}\n</tool_call>'
)
PATCHED = '<tool_call>\n{"name": "patch", "arguments": {"input": "a\\nb"}}\n</tool_call>'
