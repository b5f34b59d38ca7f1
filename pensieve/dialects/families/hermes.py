"""Qwen2.5, Qwen3, Hermes and their kin: a call is a JSON object in `<tool_call>` tags, the template writes tools and results."""

from pensieve.dialects.dialect import JSON_CALL, Dialect

DIALECT = Dialect("hermes", JSON_CALL)


def dialect_in(template: str) -> Dialect | None:
    """This one, for a chat template of its family."""
    return DIALECT if "<tool_call>" in template and "tool_call" in template else None
