"""Mistral: calls after `[TOOL_CALLS]`, as one JSON list or each as name and arguments.

Some versions write ids. The templates require short ones.
"""

import re
from dataclasses import replace

from pensieve.dialects.dialect import CallForm, Dialect

# A template that writes the id of a call in its JSON; its quotes may be escaped.
_ID = re.compile(r'\\?"id\\?": \\?"')

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
    id_chars=9,
)
# Released between the other two forms: each call of the list also has its id.
LIST_WITH_ID = Dialect(
    "mistral-list-with-id",
    replace(LIST.calls, after_arguments=', "id": "{id}"}'),
    writer="template",
    id_chars=9,
    call_id="{id}",
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
    id_chars=9,
)
# The same with an id in each call.
WITH_ID = Dialect(
    "mistral-with-id",
    replace(NAMED.calls, after_name="[CALL_ID]{id}[ARGS]"),
    writer="template",
    id_chars=9,
    call_id="{id}",
)


def dialect_in(template: str) -> Dialect | None:
    if "[TOOL_CALLS]" not in template:
        return None
    if "[CALL_ID]" in template:
        return WITH_ID
    if "[ARGS]" in template:
        return NAMED
    return LIST_WITH_ID if _ID.search(template) else LIST
