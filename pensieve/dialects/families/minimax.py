"""MiniMax M2: a section of calls, written as `<invoke>` with `<parameter>`s."""

from pensieve.dialects.dialect import CallForm, Dialect, ParameterForm

DIALECT = Dialect(
    "minimax",
    CallForm(
        opening="<minimax:tool_call>",
        inside=("\n", "\n"),
        before_name='<invoke name="',
        after_name='">\n',
        after_arguments="</invoke>",
        closing="</minimax:tool_call>",
        separator="\n",
        parameters=ParameterForm('<parameter name="', '">', "</parameter>\n"),
    ),
    writer="template",
)


def dialect_in(template: str) -> Dialect | None:
    return DIALECT if "<minimax:tool_call>" in template else None
