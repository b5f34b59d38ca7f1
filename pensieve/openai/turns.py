"""Builds the turns of a conversation, in which every call has exactly one result.

Histories are sent again with every turn, so that one line in the log tells of all repairs.

Agents that were interrupted leave calls without results and results without calls, which would fail
every later request of their session: a missing result is supplied, an orphan is dropped. Calls and
results are matched within one answer, as some servers give the same ids again.
"""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from pydantic import JsonValue

from pensieve.api.json_body import decode
from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ResultPart,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Role, Turn
from pensieve.errors import InvalidRequestError
from pensieve.openai.calls import tool_use_id

_log = logging.getLogger("pensieve.openai")

NO_RESULT = "There is no result: the call was interrupted."


class TurnBuilder:
    """Owns the turns so far and the calls of the last answer that have no result yet."""

    def __init__(self) -> None:
        self._turns: list[tuple[Role, list[ContentBlock]]] = []
        # Our ids of those calls, by the client's id, which some servers give several times.
        self._open: dict[str, deque[str]] = {}
        self._supplied = 0  # results
        self._orphans = 0  # results that were dropped
        self._ids: set[str] = set()  # of all calls
        self._has_result = False  # since the last answer

    def add_system(self, blocks: Sequence[ContentBlock]) -> None:
        self._append("system", blocks)

    def add_user(self, blocks: Sequence[ContentBlock]) -> None:
        self._close()
        self._append("user", blocks)

    def begin_answer(self) -> None:
        """Must precede the calls of an answer and its `add_answer`."""
        if self._has_result:
            self._close()

    def new_call(self, call_id: str, name: str, tool_input: dict[str, JsonValue]) -> ToolUseBlock:
        """Return a call, which then waits for its result."""
        use_id = self._new_id(call_id)
        self._open.setdefault(call_id, deque()).append(use_id)
        return ToolUseBlock(type="tool_use", id=use_id, name=name, input=tool_input)

    def add_answer(self, blocks: Sequence[ContentBlock]) -> None:
        self._append("assistant", blocks)

    def extend_answer(self, blocks: Sequence[ContentBlock]) -> None:
        """Add to the last answer if nothing came after it."""
        if self._turns and self._turns[-1][0] == "assistant":
            self._turns[-1][1].extend(blocks)
        else:
            self._append("assistant", blocks)

    def add_result(self, call_id: str, content: Sequence[ResultPart]) -> None:
        """Add a result. Without an id it is that of the first call that waits for one."""
        answered = call_id or next(iter(self._open), "")
        if answered not in self._open:
            self._orphans += 1
            return
        use_id = self._open[answered].popleft()
        if not self._open[answered]:
            del self._open[answered]
        self._has_result = True
        self._append("user", [_result(use_id, content)])

    def finished(self) -> tuple[Turn, ...]:
        """Return the turns. The last system turn is the user's if there are only such ones: no
        template begins without.
        """
        self._close()
        self._log_repairs()
        turns = self._turns
        if turns and all(role == "system" for role, _ in turns):
            turns = [*turns[:-1], ("user", turns[-1][1])]
        return tuple(
            Turn.model_construct(role=role, content=tuple(blocks)) for role, blocks in turns
        )

    def _append(self, role: Role, blocks: Sequence[ContentBlock]) -> None:
        if blocks:
            self._turns.append((role, list(blocks)))

    def _new_id(self, call_id: str) -> str:
        use_id = tool_use_id(call_id) if call_id else f"call_{len(self._ids)}"
        if use_id in self._ids:
            use_id = f"{use_id}.{len(self._ids)}"
        self._ids.add(use_id)
        return use_id

    def _close(self) -> None:
        """Supply the results that are missing."""
        missing = [
            _result(use_id, [text_block(NO_RESULT)], is_error=True)
            for use_ids in self._open.values()
            for use_id in use_ids
        ]
        self._supplied += len(missing)
        self._append("user", missing)
        self._open, self._has_result = {}, False

    def _log_repairs(self) -> None:
        if self._supplied:
            _log.warning("%d tool calls have no result, telling the model so", self._supplied)
        if self._orphans:
            _log.warning("ignoring %d results without a call", self._orphans)


def text_block(text: str) -> TextBlock:
    return TextBlock(type="text", text=text)


def _result(
    use_id: str, content: Sequence[ResultPart], *, is_error: bool = False
) -> ToolResultBlock:
    return ToolResultBlock(
        type="tool_result", tool_use_id=use_id, content=tuple(content), is_error=is_error
    )


def arguments_of(arguments: JsonValue) -> dict[str, JsonValue]:
    """Return the arguments of a call as an object. Text that is none, as of a cut answer, stays
    text.
    """
    if isinstance(arguments, str):
        with suppress(InvalidRequestError):
            arguments = cast("JsonValue", decode(arguments.encode()))
    if isinstance(arguments, dict):
        return arguments
    return {"arguments": arguments} if arguments else {}
