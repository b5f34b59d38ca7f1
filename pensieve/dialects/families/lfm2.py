"""LFM2: calls in Python syntax, in a list between its own tokens.

The template writes no calls, so format_calls.py does.
"""

from pensieve.dialects.dialect import CallForm, Dialect, ParameterForm

DIALECT = Dialect(
    "lfm2",
    CallForm(
        opening="<|tool_call_start|>",
        inside=("[", "]"),
        before_name="",
        after_name="(",
        after_arguments=")",
        closing="<|tool_call_end|>",
        separator=", ",
        parameters=ParameterForm("", "=", separator=", ", quote='"'),
    ),
)


def dialect_in(template: str) -> Dialect | None:
    marks = ("<|tool_list_start|>", "<|tool_call_start|>")
    return DIALECT if any(mark in template for mark in marks) else None
