"""States of the answer parser. Only answer_parser.py changes them."""

import re
from dataclasses import dataclass, field, replace

from pensieve.reply.bare_calls import BareCallParser
from pensieve.reply.char_parser import CharParser
from pensieve.reply.spans import Span

_FENCE = "```"
_SINGLE_QUOTE = re.compile(r"(?:\A|\W)'\Z")


@dataclass(slots=True)
class Quoting:
    """Tracks whether a text's end is quoted: in a fenced block, inline code or quotation marks.

    A mark that is quoted is text. Owns the current line, and whether a fenced block is open before
    it, so the text may arrive in any pieces.
    """

    line: str = ""
    is_in_block: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the next character is quoted."""
        line = self.line
        is_in_line = line.count("`") % 2 == 1 or line.count('"') % 2 == 1
        return self.is_in_block or is_in_line or bool(_SINGLE_QUOTE.search(line))

    def is_new_line_after(self, text: str) -> bool:
        """Whether a line that is blank so far is open after `text`, outside of fenced blocks."""
        after = replace(self)
        after.feed(text)
        return not after.is_in_block and not after.line.strip()

    def feed(self, text: str) -> None:
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            self.is_in_block ^= line.lstrip().startswith(_FENCE)


@dataclass(slots=True)
class InThought:
    """After the mark that opens a thought."""

    trailing_blanks: str = ""  # dropped if the thought ends after them
    has_begun: bool = False


@dataclass(slots=True)
class InText:
    """In text, outside of thoughts and calls."""

    # Nothing precedes the text: a thought may follow, or a call that is the whole answer.
    may_think: bool = True
    may_be_call: bool = True
    is_after_call: bool = False
    is_text_next: bool = False  # the next character was tried as a bare call and is text
    keeps_leading_blanks: bool = True  # no mark precedes the text
    trailing_blanks: str = ""  # dropped if a mark follows
    blank_spans: tuple[Span, ...] = ()  # where they are in the answer
    has_begun: bool = False
    quoting: Quoting = field(default_factory=Quoting)
    open_thoughts: int = 0  # opening marks in the text that nothing has closed yet


@dataclass(slots=True)
class InCall:
    """After the mark that opens calls."""

    before: InText
    parser: CharParser[None]
    pending: str  # characters since the last event; text if the call proves invalid
    has_emitted: bool = False
    is_open: bool = False


@dataclass(slots=True)
class InBareCall:
    """In what may be calls without marks, which last until the answer's end."""

    before: InText
    calls: BareCallParser
    parser: CharParser[None]
    pending: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """After an invalid call."""


State = InThought | InText | InCall | InBareCall | Broken
