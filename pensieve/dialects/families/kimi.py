"""Kimi K2: a section of calls, each named by its function and its index."""

from pensieve.dialects.dialect import CallForm, Dialect

DIALECT = Dialect(
    "kimi",
    CallForm(
        opening="<|tool_calls_section_begin|>",
        before_name="<|tool_call_begin|>functions.",
        after_name=":{index}<|tool_call_argument_begin|>",
        after_arguments="<|tool_call_end|>",
        closing="<|tool_calls_section_end|>",
        separator="",
    ),
    call_id="functions.{name}:{index}",
)


def dialect_in(template: str) -> Dialect | None:
    return DIALECT if "<|tool_calls_section_begin|>" in template else None
