"""Small conversations that show what a chat template does: with thoughts (thoughts.py), with its variables (efforts.py), and
at the end of a turn (turn_ends.py).

So it is tried, not read from a list of families. Knows no family.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pensieve.dialects.dialect import Variables
from pensieve.errors import InvalidRequestError

Message = Mapping[str, object]
# The template's text for messages, told some variables. Raises `InvalidRequestError` where it refuses them.
Render = Callable[[Sequence[Message], Variables], str]

# Texts of turns, which no template holds.
QUESTION, MORE, ANSWER = "quartz", "walnut", "copper"
ASKED: Message = {"role": "user", "content": QUESTION}
ASKED_MORE: Message = {"role": "user", "content": MORE}
TOLD: Message = {"role": "system", "content": "granite"}
CLOSED: Variables = {"add_generation_prompt": False}

# What stands in brackets and is one word: `<think>`, `[/THINK]`, `<|begin_of_thought|>`.
_MARK = r"[<\[◁][^<>\[\]◁▷\s]+[>\]▷]"


@dataclass(frozen=True)
class Probe:
    """A chat template to be tried. controls: the texts of the model's control tokens. names: that the template reads."""

    render: Render
    controls: Collection[str]
    names: Collection[str]

    def text(self, messages: Sequence[Message], *variables: Variables) -> str | None:
        """Return what the template writes; None where it refuses."""
        told: dict[str, object] = {}
        for some in variables:
            told |= some
        try:
            return self.render(messages, told)
        except InvalidRequestError:
            return None

    def prompt(self, *variables: Variables) -> str | None:
        """Return the prompt of a question, with a system turn where the template takes one."""
        return self.text(self._question, *variables)

    @cached_property
    def _question(self) -> Sequence[Message]:
        rendered = self.text([TOLD, ASKED])
        return [TOLD, ASKED] if rendered and str(TOLD["content"]) in rendered else [ASKED]

    def controls_in(self, text: str) -> list[str]:
        """Return the control tokens in a text, in their order."""
        return self._control.findall(text) if self.controls else []

    def mark_at_start(self, text: str) -> str:
        """Return the control token or the word in brackets that a text begins with."""
        found = self._mark.match(text)
        return found[0] if found else ""

    def mark_at_end(self, text: str) -> str:
        """Return the one that a text ends with, with what names it: `<|channel>thought`."""
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
