"""Qwen3-Coder, Qwen3.5: a call in XML-like tags, with unquoted parameters between tags."""

from pensieve.dialects.dialect import CallForm, Dialect, ParameterForm

DIALECT = Dialect(
    "qwen-coder",
    CallForm(
        opening="<tool_call>",
        inside=("\n", "\n"),
        before_name="<function=",
        after_name=">\n",
        after_arguments="</function>",
        closing="</tool_call>",
        parameters=ParameterForm("<parameter=", ">\n", "\n</parameter>\n"),
    ),
)


def dialect_in(template: str) -> Dialect | None:
    forms = ("<tool_call>\\n<function=", "<tool_call>\n<function=")
    return DIALECT if any(form in template for form in forms) else None
