"""States of the answer parser. Only answer_parser.py changes them."""

from dataclasses import dataclass, field

from pensieve.reply.bare_calls import BareCallParser
from pensieve.reply.char_parser import CharParser
from pensieve.reply.quoting import Quoting


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
    may_have_bare_calls: bool = True  # no invalid call precedes the text
    is_after_call: bool = False
    is_text_next: bool = False  # the next character was tried as a bare call and is text
    keeps_leading_blanks: bool = True  # no mark precedes the text
    trailing_blanks: str = ""  # dropped if a mark follows
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


State = InThought | InText | InCall | InBareCall
