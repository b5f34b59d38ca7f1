"""Tool calls: ids by each API's prefix, and arguments as they were generated, whole or cut off.

Clients send back the ids that they were given.
"""

import re

from pydantic_core import from_json

_OURS = re.compile(r"call(_01[0-9A-Za-z]{22})", re.ASCII)


def call_id(tool_use_id: str) -> str:
    return tool_use_id.replace("toolu", "call", 1)


def tool_use_id(call_id: str) -> str:
    """Return the id by which an answer is stored; another server's id unchanged."""
    match = _OURS.fullmatch(call_id)
    return f"toolu{match[1]}" if match else call_id


def is_whole(arguments: str) -> bool:
    """Whether they were generated to their end. Those of a tool without parameters are `{}`."""
    try:
        from_json(arguments)
    except ValueError:
        return False
    return True


def text_input(arguments: str) -> str:
    """Return the input of a custom tool, which is the text in an object, as far as it goes."""
    try:
        fields = from_json(arguments or "{}", allow_partial="trailing-strings")
    except ValueError:
        return arguments
    match fields:
        case {"input": str(value)}:
            return value
        case _:
            return arguments if fields else ""
