"""Gemma: a call is `call:name{key:value}` between its own tokens; texts have their own quotes.

Gemma 2 and 3 have no tools.
"""

from pensieve.dialects.dialect import CallForm, Dialect, ParameterForm, ThinkingForm

GEMMA_4 = Dialect(
    "gemma4",
    CallForm(
        opening="<|tool_call>",
        before_name="call:",
        after_name="{",
        after_arguments="}",
        closing="<tool_call|>",
        between="",
        parameters=ParameterForm("", ":", separator=",", quote='<|"|>', is_nested=True),
    ),
    writer="template",
    thinking=ThinkingForm("<|channel>thought", "<channel|>"),
)
FUNCTION_GEMMA = Dialect(
    "function-gemma",
    CallForm(
        opening="<start_function_call>",
        before_name="call:",
        after_name="{",
        after_arguments="}",
        closing="<end_function_call>",
        between="",
        parameters=ParameterForm("", ":", separator=",", quote="<escape>", is_nested=True),
    ),
    writer="template",
)


def dialect_in(template: str) -> Dialect | None:
    if "<|tool_call>" in template and "<tool_call|>" in template:
        return GEMMA_4
    return FUNCTION_GEMMA if "<start_function_call>" in template else None
