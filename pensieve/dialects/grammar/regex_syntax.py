"""Check a client's regular expression and write it in Rust's syntax, which llguidance reads.

Refused is what no automaton matches (look-arounds, backreferences), and what Python, JavaScript and
Rust read differently. The result is one group that can stand anywhere in a larger expression.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAX_CHARS = 32_768
MAX_DEPTH = 64
MAX_REPEAT = 1_000

_HEX = r"x[0-9a-fA-F]{2}|x\{[0-9a-fA-F]{1,6}\}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}"
_ESCAPE = rf"\\(?:{_HEX}|[pP](?:\{{[A-Za-z_=]+\}}|[A-Z])|(?s:.))"
_TOKEN = re.compile(
    rf"""
    (?P<class>\[\^?\]?(?:\\(?s:.)|[^\[\]\\])*\])
    | (?P<flags>\(\?(?:[ims]+(?:-[ims]+)?|-[ims]+)\))
    | (?P<group>\((?:(?!\?)|\?P?<[A-Za-z_]\w*>|\?[ims]*(?:-[ims]+)?:))
    | (?P<close>\))
    | (?P<repeat>[*+?]|\{{(?P<min>\d+)(?:,(?P<max>\d*))?\}})(?P<lazy>\??)
    | (?P<start>\^|\\A) | (?P<end>\$|\\[zZ])
    | (?P<or>\|) | (?P<any>\.)
    | (?P<escape>{_ESCAPE})
    | (?P<char>(?s:.))
    """,
    re.VERBOSE,
)
_IN_CLASS = re.compile(rf"{_ESCAPE}|(?s:.)")
_NAME = re.compile(r"\(\?P?<")
_SET_OPERATIONS = ("&&", "--", "~~")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;=?@[\\]^_`{|}~")
_CLASSES = frozenset("dDwWsS")
_CONTROLS = frozenset("nrtfv")


class TextGrammarError(ValueError):
    """A client's grammar is invalid, or not one that can be enforced."""


@dataclass(frozen=True, slots=True)
class Regex:
    text: str
    # Expressions of one character each, of which all texts consist.
    atoms: frozenset[str] = frozenset()

    def may_contain(self, chars: Iterable[str]) -> bool:
        """Return whether a text that this matches may have one of `chars`."""
        try:
            atom = re.compile("|".join(self.atoms), re.DOTALL | re.IGNORECASE)
        except re.error:  # has a class that Python does not know
            return True
        return any(atom.fullmatch(char) for char in chars)


def regex_of(pattern: str, *, is_whole: bool = False) -> Regex:
    """Return the expression for `pattern`.

    is_whole: it matches a whole text, at whose ends it may have anchors. Raises `TextGrammarError`.
    """
    if len(pattern) > MAX_CHARS:
        raise TextGrammarError(f"a regular expression has more than {MAX_CHARS} characters")
    writer = _Writer(is_whole=is_whole)
    for token in _TOKEN.finditer(pattern):
        writer.add(token, pattern)
    return writer.finished()


def regex_of_text(text: str) -> Regex:
    """Return the expression that matches only `text`."""
    chars = [_literal(char) for char in text]
    return Regex("".join(chars), frozenset(chars))


def regex_of_range(first: str, last: str) -> Regex:
    """Return the expression that matches one character of a range."""
    atom = f"[{_literal(first)}-{_literal(last)}]"
    return Regex(atom, frozenset({atom}))


def flagged(regex: Regex, flags: str) -> Regex:
    """Return the expression with flags, as `i`. Atoms count with any case."""
    return Regex(f"(?{flags}:{regex.text})", regex.atoms) if flags else regex


@dataclass(slots=True)
class _Writer:
    """Owns the part of the expression that is written."""

    is_whole: bool
    _parts: list[str] = field(default_factory=list[str])
    _atoms: set[str] = field(default_factory=set[str])
    _depth: int = 0
    _is_repeatable: bool = False  # the last part
    _has_begun: bool = False  # the alternative has parts that are no flags

    def finished(self) -> Regex:
        if self._depth:
            raise TextGrammarError("a group is not closed")
        return Regex(f"(?:{''.join(self._parts)})", frozenset(self._atoms))

    def add(self, token: re.Match[str], pattern: str) -> None:
        match token.lastgroup if token["repeat"] is None else "repeat":
            case "class":
                self._add_atom(_class(token[0]))
            case "any":
                self._add_atom(".")
            case "escape":
                self._add_atom(_escape(token[0]))
            case "char":
                self._add_atom(_char(token[0], pattern[token.end() : token.end() + 1]))
            case "repeat":
                self._add_repeat(token)
            case "group" | "flags" | "or":
                self._add_operator(token)
            case "close":
                self._close()
            case _:
                self._check_anchor(token, pattern)

    def _add_atom(self, atom: str) -> None:
        self._parts.append(atom)
        self._atoms.add(atom)
        self._is_repeatable = self._has_begun = True

    def _add_operator(self, token: re.Match[str]) -> None:
        is_group = token.lastgroup == "group"
        self._depth += is_group
        if self._depth > MAX_DEPTH:
            raise TextGrammarError(f"groups are nested more than {MAX_DEPTH} deep")
        is_plain = token[0] == "(" or _NAME.match(token[0])
        self._parts.append("(?:" if is_group and is_plain else token[0])
        self._is_repeatable = False
        if token.lastgroup != "flags":
            self._has_begun = is_group

    def _close(self) -> None:
        self._depth -= 1
        if self._depth < 0:
            raise TextGrammarError("a group is closed that is not open")
        self._parts.append(")")
        self._is_repeatable = self._has_begun = True

    def _add_repeat(self, token: re.Match[str]) -> None:
        """Add a repetition. Laziness changes no whole match."""
        if not self._is_repeatable:
            raise TextGrammarError(f"there is nothing that {token['repeat']} could repeat")
        counts = [count for count in (token["min"], token["max"]) if count]
        if any(len(count) > 6 or int(count) > MAX_REPEAT for count in counts):
            raise TextGrammarError(f"a repetition has a count over {MAX_REPEAT}")
        self._parts.append(token["repeat"])
        self._is_repeatable = False

    def _check_anchor(self, token: re.Match[str], pattern: str) -> None:
        """Drop anchors where a text begins and ends anyway."""
        if token.lastgroup == "start":
            at_edge = not self._has_begun
        else:
            at_edge = pattern[token.end() : token.end() + 1] in ("", "|")
        if not self.is_whole or self._depth or not at_edge:
            raise TextGrammarError(f"{token[0]} is supported only at the ends of a whole text")
        self._is_repeatable = False


def _char(char: str, following: str) -> str:
    if char == "[":
        raise TextGrammarError("a class of characters is not closed, or has another one in it")
    if char == "(":
        raise TextGrammarError("groups with (? are supported only if named, or with flags i, m, s")
    if char == "\\":
        raise TextGrammarError("there is nothing after the last backslash")
    if char == "{" and following == ",":
        raise TextGrammarError("a repetition has no minimum")
    return _literal(char)


def _escape(token: str) -> str:
    body = token[1:]
    if len(body) > 1 or body in _CLASSES or body in _CONTROLS:
        return token
    if body.isascii() and body.isalnum():
        raise TextGrammarError(f"{token} is not supported")
    return _literal(body)


def _class(token: str) -> str:
    is_negated = token.startswith("[^")
    body = token[1 + is_negated : -1]
    if any(operation in body for operation in _SET_OPERATIONS):
        raise TextGrammarError("&&, -- and ~~ in classes of characters are not supported")
    return f"[{'^' if is_negated else ''}{''.join(_in_class(body))}]"


def _in_class(body: str) -> Iterator[str]:
    for found in _IN_CLASS.finditer(body):
        part = found[0]
        if part == "-":
            yield part
        else:
            yield _escape(part) if part[0] == "\\" and len(part) > 1 else _literal(part)


def _literal(char: str) -> str:
    """Return one character as an expression, also between slashes and in a class."""
    if char in _PUNCTUATION:
        return "\\" + char
    return f"\\x{ord(char):02x}" if char < " " or char == "\x7f" else char
