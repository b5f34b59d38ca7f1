"""Render small conversations with a chat template, for this folder's other modules to analyze.

Knows no family.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pensieve.dialects.dialect import Variables
from pensieve.errors import InvalidRequestError

Message = Mapping[str, object]
# Renders messages with variables. Raises `InvalidRequestError` if the template refuses them.
Render = Callable[[Sequence[Message], Variables], str]

# Texts of turns. No template contains them.
QUESTION, MORE, ANSWER = "quartz", "walnut", "copper"
QUESTION_TURN: Message = {"role": "user", "content": QUESTION}
FOLLOW_UP_TURN: Message = {"role": "user", "content": MORE}
SYSTEM: Message = {"role": "system", "content": "granite"}
CLOSED: Variables = {"add_generation_prompt": False}

# Characters in brackets, without blanks: `<think>`, `[/THINK]`, `<|begin_of_thought|>`.
_MARK = r"[<\[◁][^<>\[\]◁▷\s]{1,60}[>\]▷]"


@dataclass(frozen=True)
class Probe:
    """Renders one chat template."""

    render: Render
    controls: Collection[str]  # texts of the model's control tokens
    names: Collection[str]  # variables that the template reads

    def text(self, messages: Sequence[Message], *variables: Variables) -> str | None:
        """Render; None where the template refuses."""
        merged: dict[str, object] = {}
        for layer in variables:
            merged |= layer
        try:
            return self.render(messages, merged)
        except InvalidRequestError:
            return None

    def prompt(self, *variables: Variables) -> str | None:
        """Render a question, after a system turn where the template takes one."""
        return self.text(self._question, *variables)

    @cached_property
    def _question(self) -> Sequence[Message]:
        rendered = self.text([SYSTEM, QUESTION_TURN])
        return (
            [SYSTEM, QUESTION_TURN]
            if rendered and str(SYSTEM["content"]) in rendered
            else [QUESTION_TURN]
        )

    def controls_in(self, text: str) -> list[str]:
        """Return the control tokens in a text, in their order."""
        return self._control.findall(text) if self.controls else []

    def mark_at_start(self, text: str) -> str:
        """Return the control token or the bracketed characters that a text begins with."""
        found = self._mark.match(text)
        return found[0] if found else ""

    def mark_at_end(self, text: str) -> str:
        """Return the mark that a text ends with, and the name after it: `<|channel>thought`."""
        found = re.search(rf"(?:{self._mark.pattern})\w*\Z", text)
        return found[0] if found else ""

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.controls, key=len, reverse=True))))

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        return re.compile(f"{self._control.pattern}|{_MARK}" if self.controls else _MARK)


def common_length(one: str, other: str) -> int:
    """Return how many characters two short texts begin with alike."""
    differing = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
