"""Mistral: calls behind `[TOOL_CALLS]`, as one JSON list, or each as its name and its arguments. The template wants short ids."""

from dataclasses import replace

from pensieve.dialects.dialect import CallForm, Dialect

LIST = Dialect(
    "mistral",
    CallForm(
        opening="[TOOL_CALLS]",
        inside=("[", "]"),
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_arguments="}",
        closing="",
        separator=", ",
        keys=("name", "arguments"),
    ),
    writer="template",
    id_letters=9,
)
NAMED = Dialect(
    "mistral-named",
    CallForm(
        opening="[TOOL_CALLS]",
        before_name="",
        after_name="[ARGS]",
        after_arguments="",
        closing="",
        between="",
    ),
    writer="template",
    id_letters=9,
)
# Between the two in time: each call tells its id too.
WITH_ID = Dialect(
    "mistral-with-id",
    replace(NAMED.calls, after_name="[CALL_ID]{id}[ARGS]"),
    writer="template",
    id_letters=9,
    call_id="{id}",
)


def dialect_in(template: str) -> Dialect | None:
    """The one of a chat template of this family."""
    if "[TOOL_CALLS]" not in template:
        return None
    if "[CALL_ID]" in template:
        return WITH_ID
    return NAMED if "[ARGS]" in template else LIST
