"""Replaces placeholders in a rendered prompt, each of which represents a turn of the assistant.

The template is given a placeholder as the turn's text or as the names of its calls, and writes the
rest: the marks around the turn, and the results. What it writes around the names of calls goes. A
template that writes the name again next to the result gets the tool's name there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pensieve.prompt.template.call_turns import CallFrame
from pensieve.prompt.template.probe import Opening


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a placeholder represents: an answer as generated, or a text."""

    names: tuple[str, ...] = ()  # of the turn's calls
    opening: str = ""  # of an answer as generated: what its prompt ended with
    text: str | None = None  # None: the placeholder stays, tokens replace it later


def call_placeholder(placeholder: str, call: int) -> str:
    """Return the name of the turn's call at index `call`."""
    return f"{placeholder[:-1]}.{call}{placeholder[-1]}"


@dataclass(frozen=True, slots=True)
class Placeholders:
    """The placeholders of one prompt."""

    pattern: re.Pattern[str]  # matches all of them; group `call` is the index of a call
    replacements: Mapping[str, Replacement]
    opening: Opening
    frame: CallFrame | None

    def replace(self, text: str) -> str:
        """Return the text with replacements. A turn in an unexpected frame stays unchanged."""
        parts: list[str] = []
        seen: set[str] = set()
        start = 0
        for found in self.pattern.finditer(text):
            before = text[start : found.start()]
            if found["call"] is None:
                part, start = self._text_turn(before, found[0]), found.end()
            elif found[0] in seen:
                part, start = before + self._name(found), found.end()
            else:
                part, start = self._call(text, before, found)
            seen.add(found[0])
            parts.append(part)
        return "".join([*parts, text[start:]])

    def _text_turn(self, before: str, placeholder: str) -> str:
        return self._opened(before, self.replacements[placeholder].opening) + placeholder

    def _opened(self, before: str, opening: str) -> str:
        """Return what precedes an answer, with the end that the answer's prompt had."""
        shared = self.opening.shared
        if not shared:
            return before
        if not opening:  # the prompt ended in a turn of the model's that was open
            return before.removesuffix(self.opening.written)
        offset = before.rfind(shared)
        return before[:offset] + opening if offset >= 0 else before

    def _name(self, found: re.Match[str]) -> str:
        replacement = self.replacements[_turn(found)]
        return replacement.names[int(found["call"])]

    def _call(self, text: str, before: str, found: re.Match[str]) -> tuple[str, int]:
        """Return what replaces the text up to the end of a call, and where that end is."""
        end = self._end(text, found)
        replaced = (
            self._first(before, _turn(found)) if found["call"] == "0" else self._later(before)
        )
        if replaced is None or end is None:
            return before + found[0], found.end()
        return replaced, end

    def _first(self, before: str, turn: str) -> str | None:
        """Return what precedes the turn's first call, and the turn; None in an unexpected frame."""
        if self.frame is None or not before.endswith(self.frame.head):
            return None
        before = before.removesuffix(self.frame.head)
        replacement = self.replacements[turn]
        if replacement.text is not None:
            return before + self.frame.text_opening + replacement.text
        if before.endswith(self.frame.opening):
            return before.removesuffix(self.frame.opening) + replacement.opening + turn
        # The template continues the turn that has the results, as the answer's prompt did.
        return None if replacement.opening else before + turn

    def _later(self, before: str) -> str | None:
        """Return what precedes another call of the turn: results, or nothing."""
        if not before or self.frame is None:
            return before  # the joint between two calls has been skipped
        results = before.removesuffix(self.frame.head)
        # A call in a turn of its own: the beginning and end of that turn would remain.
        is_turn = bool(self.frame.opening) and results.endswith(self.frame.opening)
        return None if results == before or is_turn else results

    def _end(self, text: str, found: re.Match[str]) -> int | None:
        if self.frame is None:
            return None
        following = call_placeholder(_turn(found), int(found["call"]) + 1)
        joint = self.frame.joint and self.frame.joint.match(text, found.end())
        if joint and text.startswith(following, joint.end()):
            return joint.end()
        tail = self.frame.tail.match(text, found.end())
        return tail and tail.end()


def _turn(found: re.Match[str]) -> str:
    """Return the placeholder of the turn that a call's is of."""
    return found["turn"] + found[0][-1]
