"""Takes terminal control out of a model's text, so that an answer cannot move the cursor, set the title, hide or turn itself round.

One stripper per answer. Character by character, so the result is the same however the text is split.
Sequences as in ECMA-48: CSI to its final byte, OSC and its kin to BEL or ST; a line end breaks off an unfinished one.
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


class State(Enum):
    """Where in a sequence the next character falls."""

    TEXT = auto()
    AFTER_ESC = auto()
    IN_CSI = auto()
    IN_STRING = auto()
    ESC_IN_STRING = auto()


class EscapeStripper:
    """Owns where in a sequence one answer's text has come to."""

    def __init__(self) -> None:
        self._state = State.TEXT

    def feed(self, text: str) -> str:
        """`text` without control sequences and without control characters other than line end and tab."""
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
