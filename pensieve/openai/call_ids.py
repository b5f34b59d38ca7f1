"""Ids of tool calls, by each API's prefix. Clients send back what they were given."""

import re

_OURS = re.compile(r"call(_01[0-9A-Za-z]{22})", re.ASCII)


def call_id(tool_use_id: str) -> str:
    return tool_use_id.replace("toolu", "call", 1)


def tool_use_id(call_id: str) -> str:
    """Return the id by which an answer is stored; another server's id unchanged."""
    match = _OURS.fullmatch(call_id)
    return f"toolu{match[1]}" if match else call_id
