"""States of the answer reader. Only answer_parser.py changes them."""

from dataclasses import dataclass, field

from pensieve.reply.bare_calls import BareCallParser
from pensieve.reply.char_parser import CharParser
from pensieve.reply.quoting import Quoting


@dataclass(slots=True)
class InThought:
    """Behind the mark that opens a thought. held: blanks, with which the thought may end."""

    held: str = ""
    has_begun: bool = False


@dataclass(slots=True)
class InText:
    """In what is said. held: blanks that may be a mark's.

    may_think, may_be_call: nothing was before it, so a thought may come, or a call that is the whole answer. keeps_blanks: those
    at its beginning, since no mark is before it. may_have_bare_calls: no call broke off before it. is_after_call: it
    follows a call. is_tried: the next character begins no bare call.
    """

    may_think: bool = True
    may_be_call: bool = True
    may_have_bare_calls: bool = True
    is_after_call: bool = False
    is_tried: bool = False
    keeps_blanks: bool = True
    held: str = ""
    has_begun: bool = False
    quoting: Quoting = field(default_factory=Quoting)
    open_thoughts: int = 0  # opening marks in the text that nothing has closed yet


@dataclass(slots=True)
class InCall:
    """Behind the mark that opens calls. before: the text that it stands in. unsaid: letters of which nothing was told yet."""

    before: InText
    reading: CharParser[None]
    unsaid: str
    has_told: bool = False
    is_open: bool = False


@dataclass(slots=True)
class InBareCall:
    """In what may be calls without their marks, up to the answer's end."""

    before: InText
    calls: BareCallParser
    reading: CharParser[None]
    unsaid: str = ""


State = InThought | InText | InCall | InBareCall
