"""GLM 4.5 and later: the name, then each key and value between tags. 4.7 has no line breaks."""

from pensieve.dialects.dialect import CallForm, Dialect, ParameterForm

DIALECT = Dialect(
    "glm",
    CallForm(
        opening="<tool_call>",
        before_name="",
        after_name="\n",
        after_arguments="</tool_call>",
        closing="",
        parameters=ParameterForm("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
)
DENSE = Dialect(
    "glm-4.7",
    CallForm(
        opening="<tool_call>",
        before_name="",
        after_name="",
        after_arguments="</tool_call>",
        closing="",
        between="",
        parameters=ParameterForm("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
    ),
)


def dialect_in(template: str) -> Dialect | None:
    if "<arg_key>" not in template:
        return None
    return DENSE if "</arg_key><arg_value>" in template else DIALECT
