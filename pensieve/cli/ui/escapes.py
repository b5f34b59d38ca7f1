"""Removes terminal control from a model's text: cursor moves, titles, hidden or reversed text.

One stripper per answer. It works by character, so the result does not depend on how the text is
split. Sequences follow ECMA-48: CSI to its final byte, OSC and similar strings to BEL or ST; a
line end terminates an unfinished one.
"""

import re
from enum import Enum, auto

from pensieve.untrusted_text import BIDI_CONTROLS, CONTROLS

ESC = "\x1b"
BEL = "\x07"
CSI = "\x9b"
ST = "\x9c"
STRINGS = frozenset("\x90\x98\x9d\x9e\x9f")  # DCS, SOS, OSC, PM, APC as single characters
STRING_CHARS = frozenset("PX]^_")  # the same after ESC
PRESERVED = frozenset("\n\t")
_CONTROL = re.compile(f"[{CONTROLS}{BIDI_CONTROLS}]")


# The position within a sequence.
class State(Enum):
    TEXT = auto()
    AFTER_ESC = auto()
    IN_CSI = auto()
    IN_STRING = auto()
    ESC_IN_STRING = auto()


class EscapeStripper:
    """Owns the parser state of one answer."""

    def __init__(self) -> None:
        self._state = State.TEXT

    def feed(self, text: str) -> str:
        """Return `text` without control sequences and controls other than line end and tab."""
        return "".join(filter(self._is_shown, text))

    def _is_shown(self, character: str) -> bool:
        if character in PRESERVED:
            self._state = State.TEXT
            return True
        if self._state is State.TEXT:
            self._state = _entered(character)
            return not _is_control(character)
        self._state = _next(self._state, character)
        return False


def _entered(character: str) -> State:
    if character == ESC:
        return State.AFTER_ESC
    if character == CSI:
        return State.IN_CSI
    return State.IN_STRING if character in STRINGS else State.TEXT


def _next(state: State, character: str) -> State:
    if state is State.IN_STRING and character != ESC:
        return State.TEXT if character in (BEL, ST) else state
    if state is State.ESC_IN_STRING:
        return State.TEXT if character == "\\" else _after_esc(character)
    if character == ESC:
        return State.ESC_IN_STRING if state is State.IN_STRING else State.AFTER_ESC
    if state is State.IN_CSI:
        return state if "\x20" <= character <= "\x3f" else State.TEXT
    return _after_esc(character)


def _after_esc(character: str) -> State:
    if character == "[":
        return State.IN_CSI
    if character in STRING_CHARS:
        return State.IN_STRING
    return State.AFTER_ESC if "\x20" <= character <= "\x2f" else State.TEXT


def _is_control(character: str) -> bool:
    return _CONTROL.match(character) is not None
