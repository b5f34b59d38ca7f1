"""GLM 4.5 and later: the name, then keys and values each between tags. 4.7 leaves the line breaks out."""

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
    """The one of a chat template of this family."""
    if "<arg_key>" not in template:
        return None
    return DENSE if "</arg_key><arg_value>" in template else DIALECT
