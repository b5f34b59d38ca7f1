"""Qwen2.5, Qwen3, Hermes and relatives: a call is a JSON object in `<tool_call>` tags."""

from pensieve.dialects.dialect import JSON_CALL, Dialect

DIALECT = Dialect("hermes", JSON_CALL)


def dialect_in(template: str) -> Dialect | None:
    return DIALECT if "<tool_call>" in template and "tool_call" in template else None
