"""Requests by every wire with a canary in each field, and answers that repeat it.

No report, page, log or archive of the server may hold it.
"""

import json
from collections.abc import Mapping
from typing import Any

from pensieve.engine.generation import Admitted, Prefilled, Started, Token
from pensieve.errors import EngineError, GrammarError
from tests.support.fakes import Step, says

CANARY = "canary-7f3a"
SCHEMA = {
    "type": "object",
    "title": CANARY,
    "description": CANARY,
    "properties": {CANARY: {"type": "string", "enum": [CANARY], "description": CANARY}},
    "required": [CANARY],
}
TURNS = [
    {"role": "user", "content": CANARY},
    {"role": "assistant", "content": CANARY},
    {"role": "user", "content": [{"type": "text", "text": CANARY}]},
]
FUNCTION = {"name": CANARY, "description": CANARY, "parameters": SCHEMA, "strict": False}
BODIES: Mapping[str, dict[str, Any]] = {
    "/v1/messages": {
        "model": CANARY,
        "max_tokens": 60,
        "messages": [
            *TURNS,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": CANARY, "signature": CANARY},
                    {"type": "tool_use", "id": CANARY, "name": CANARY, "input": {CANARY: CANARY}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": CANARY, "content": CANARY},
                    {"type": "text", "text": CANARY, "cache_control": {"type": "ephemeral"}},
                ],
            },
        ],
        "system": [{"type": "text", "text": CANARY}],
        "tools": [{"name": CANARY, "description": CANARY, "input_schema": SCHEMA}],
        "metadata": {"user_id": CANARY},
        "stop_sequences": [CANARY * 2],
        CANARY: CANARY,
    },
    "/v1/chat/completions": {
        "model": CANARY,
        "max_tokens": 60,
        "messages": [
            {"role": "system", "content": CANARY, "name": CANARY},
            *TURNS,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": CANARY,
                        "type": "function",
                        "function": {"name": CANARY, "arguments": json.dumps({CANARY: CANARY})},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": f"{CANARY}-unknown", "content": CANARY},
        ],
        "tools": [{"type": "function", "function": FUNCTION}, {"type": CANARY, CANARY: CANARY}],
        "user": CANARY,
        "metadata": {CANARY: CANARY},
        "prompt_cache_key": CANARY,
        "safety_identifier": CANARY,
        "stop": [CANARY * 2],
        CANARY: CANARY,
    },
    "/v1/responses": {
        "model": CANARY,
        "max_output_tokens": 60,
        "instructions": CANARY,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": CANARY}]},
            {
                "type": "function_call",
                "call_id": CANARY,
                "name": CANARY,
                "arguments": json.dumps({CANARY: CANARY}),
            },
            {"type": "function_call_output", "call_id": CANARY, "output": CANARY},
            {"type": CANARY, CANARY: CANARY},
            {"role": "user", "content": CANARY},
        ],
        "tools": [{"type": "function", **FUNCTION}, {"type": CANARY, CANARY: CANARY}],
        "metadata": {CANARY: CANARY},
        "prompt_cache_key": CANARY,
        "user": CANARY,
        CANARY: CANARY,
    },
    "/v1/completions": {
        "model": CANARY,
        "prompt": CANARY,
        "max_tokens": 60,
        "user": CANARY,
        "stop": [CANARY * 2],
        CANARY: CANARY,
    },
}
HEADERS = {
    "user-agent": CANARY,
    "cookie": CANARY,
    "referer": f"http://localhost/{CANARY}",
    "x-claude-code-session-id": CANARY,
    "x-session-id": CANARY,
    "anthropic-beta": CANARY,
    "x-request-id": f"not safe: {CANARY}",
    f"x-{CANARY}": CANARY,
}
CALL = f'<tool_call>\n{{"name": "{CANARY}", "arguments": {{"{CANARY}": 1, oh no'
SCRIPTS: list[list[Step]] = [
    says(CANARY),
    [Started(0), Admitted(), Prefilled(5), *says(CALL)[1:]],
    [Started(0), *map(Token, CANARY.encode()), EngineError("The engine failed on this request.")],
    [GrammarError(CANARY)],
    [RuntimeError(CANARY)],
    says(f"{CANARY}{CANARY * 2} more"),
]


def body_of(path: str, number: int) -> dict[str, Any]:
    """Return a body for the path: every third is streamed, and every seventh is refused."""
    body = BODIES[path] | {"stream": number % 3 == 0}
    if number % 7 == 0:
        body |= {"messages": CANARY, "input": 3, "prompt": {CANARY: CANARY}}
    return body
