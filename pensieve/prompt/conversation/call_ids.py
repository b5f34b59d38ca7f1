"""Track the ids of calls as the prompt has them.

Some families write an id into each call, and their templates repeat it next to the result.
"""

import json
import re
from collections.abc import Sequence

from pensieve.api.messages.content_blocks import ToolUseBlock
from pensieve.dialects.dialect import HOLES, Dialect
from pensieve.dialects.grammar.schema_types import as_schema


class CallIds:
    """Ids of one prompt's calls, by the ids of their tool uses. Empty for families without ids."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._ids: dict[str, str] = {}

    @property
    def is_used(self) -> bool:
        """Whether calls of this family have ids."""
        return bool(self._dialect.call_id)

    def read(self, uses: Sequence[ToolUseBlock], text: str) -> None:
        """Find the ids of a turn's calls in its text."""
        start = 0
        for use in uses if self.is_used else ():
            if found := self._call(use.name).search(text, start):
                start = found.end()
                if (call_id := self._id(use.name, found)) is not None:
                    self._ids[use.id] = call_id

    def get(self, use_id: str) -> str | None:
        """Return the id in the prompt of the call with this tool use."""
        return self._ids.get(use_id)

    def clear(self) -> None:
        self._ids = {}

    def _call(self, name: str) -> re.Pattern[str]:
        form = self._dialect.calls
        escaped = re.escape(form.before_name + name + form.after_name)
        for hole, pattern in HOLES.items():
            escaped = escaped.replace(re.escape(hole), f"(?P<{hole[1:-1]}>{pattern})")
        return re.compile(escaped)

    def _id(self, name: str, found: re.Match[str]) -> str | None:
        if self._dialect.calls.keys is not None:
            return _id_in_object(found.string[found.start() :])
        call_id = self._dialect.call_id.replace("{name}", name)
        for hole, value in found.groupdict().items():
            call_id = call_id.replace(f"{{{hole}}}", value)
        return call_id


def _id_in_object(text: str) -> str | None:
    """Return the id in the JSON object that `text` begins with."""
    try:
        call, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    call_id = as_schema(call).get("id")
    return call_id if isinstance(call_id, str) else None
