"""Read a grammar in Lark's language, as clients write it for the input of a tool.

Has rules, terminals, alternatives, repetitions, `%ignore` and imports of Lark's common terminals.
Refused is what Lark has besides (templates, `%declare`, `%extend`, …), and llguidance's additions.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pensieve.dialects.grammar.regex_syntax import (
    MAX_CHARS,
    MAX_REPEAT,
    Regex,
    TextGrammarError,
    flagged,
    regex_of,
    regex_of_range,
    regex_of_text,
)

MAX_DEPTH = 48
MAX_DEFINITIONS = 1_000

_TOKEN = re.compile(
    r"""
    (?P<comment>//[^\n]*|\#[^\n]*) | (?P<newline>\n) | (?P<blank>[ \t\r\f]+)
    | (?P<string>"(?:\\.|[^"\\\n])*"i?)
    | (?P<regex>/(?:\\.|[^/\\\n])+/[a-z]*)
    | (?P<name>_*[a-z][_a-z0-9]*|_*[A-Z][_A-Z0-9]*) | (?P<number>\d{1,6})
    | (?P<directive>%[a-z_]+) | (?P<sign>->|\.\.|[:|()\[\]?*+~.,!{}])
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "b": "\b"}
_PLAIN_ESCAPES = frozenset("\"\\/'")

_DECIMAL = r"[0-9]+\.[0-9]*|\.[0-9]+"
_FLOAT = rf"[0-9]+[eE][+\-]?[0-9]+|(?:{_DECIMAL})(?:[eE][+\-]?[0-9]+)?"
# Lark's own grammar of this name.
_COMMON: Mapping[str, str] = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[a-fA-F0-9]",
    "INT": "[0-9]+",
    "SIGNED_INT": r"[+\-]?[0-9]+",
    "DECIMAL": _DECIMAL,
    "FLOAT": _FLOAT,
    "SIGNED_FLOAT": rf"[+\-]?(?:{_FLOAT})",
    "NUMBER": rf"{_FLOAT}|[0-9]+",
    "SIGNED_NUMBER": rf"[+\-]?(?:{_FLOAT}|[0-9]+)",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[a-zA-Z]",
    "WORD": "[a-zA-Z]+",
    "CNAME": "[_a-zA-Z][_a-zA-Z0-9]*",
    "WS_INLINE": r"[ \t]+",
    "WS": r"[ \t\f\r\n]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "SH_COMMENT": r"#[^\n]*",
    "CPP_COMMENT": r"//[^\n]*",
    "C_COMMENT": r"/\*[^*]*\*+(?:[^/*][^*]*\*+)*/",
    "SQL_COMMENT": r"--[^\n]*",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A rule or a terminal, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Series:
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    item: "Node"
    min: int
    max: int | None


Node = Regex | Reference | Series | Choice | Repeat


@dataclass(frozen=True, slots=True)
class LarkGrammar:
    definitions: Mapping[str, Node]  # of rules and terminals
    ignored: Node | None = None  # may stand between terminals


def lark_grammar_of(definition: str) -> LarkGrammar:
    """Raises `TextGrammarError`."""
    if len(definition) > MAX_CHARS:
        raise TextGrammarError(f"the grammar has more than {MAX_CHARS} characters")
    return _Parser(list(_tokens(definition))).grammar()


def is_terminal(name: str) -> bool:
    return name.lstrip("_")[0].isupper()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int
    starts_line: bool = False


def _tokens(definition: str) -> Iterator[_Token]:
    at, line, starts_line = 0, 1, True
    while at < len(definition):
        found = _TOKEN.match(definition, at)
        if found is None:
            raise TextGrammarError(f"line {line}: unexpected character {definition[at]!r}")
        at = found.end()
        kind = str(found.lastgroup)
        if kind == "newline":
            line, starts_line = line + 1, True
        elif kind not in ("blank", "comment"):
            yield _Token(kind, found[0], line, starts_line)
            starts_line = False


@dataclass(slots=True)
class _Parser:
    """Owns the position in the tokens, and what was defined before it."""

    tokens: list[_Token]
    _at: int = 0
    _definitions: dict[str, Node] = field(default_factory=dict[str, Node])
    _ignored: list[Node] = field(default_factory=list[Node])

    def grammar(self) -> LarkGrammar:
        while self._at < len(self.tokens):
            token = self._next()
            if token.kind == "directive":
                self._read_directive(token)
            else:
                self._read_definition(token)
        ignored = Choice(tuple(self._ignored)) if self._ignored else None
        return LarkGrammar(self._definitions, ignored)

    # Tokens.

    def _peek(self) -> _Token:
        end = _Token("end", "the end", self.tokens[-1].line, starts_line=True)
        return self.tokens[self._at] if self._at < len(self.tokens) else end

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, sign: str) -> bool:
        is_next = self._peek().kind == "sign" and self._peek().text == sign
        self._at += is_next
        return is_next

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            raise _unexpected(self._peek(), f"{sign!r}")

    def _take(self, kind: str) -> _Token:
        token = self._next()
        if token.kind != kind:
            raise _unexpected(token, f"a {kind}")
        return token

    # Statements.

    def _read_definition(self, token: _Token) -> None:
        while token.text in ("?", "!"):
            token = self._next()
        if token.kind != "name":
            raise _unexpected(token, "a rule or a terminal")
        if self._accept("."):
            self._take("number")
        if self._peek().text == "{":
            raise TextGrammarError(f"line {token.line}: templates are not supported")
        self._expect(":")
        self._define(token, self._body())

    def _define(self, token: _Token, body: Node) -> None:
        if token.text in self._definitions:
            raise TextGrammarError(f"line {token.line}: {token.text} is defined twice")
        if len(self._definitions) >= MAX_DEFINITIONS:
            raise TextGrammarError(f"there are more than {MAX_DEFINITIONS} rules and terminals")
        self._definitions[token.text] = body

    def _body(self) -> Node:
        body = self._choice(0)
        if not self._peek().starts_line:
            raise _unexpected(self._peek(), "the end of the line")
        return body

    def _read_directive(self, token: _Token) -> None:
        match token.text:
            case "%ignore":
                self._ignored.append(self._body())
            case "%import":
                self._read_import(token)
            case _:
                raise TextGrammarError(f"line {token.line}: {token.text} is not supported")

    def _read_import(self, token: _Token) -> None:
        if self._next().text != "common":
            raise TextGrammarError(f"line {token.line}: only Lark's `common` can be imported")
        if self._accept("."):
            self._import(self._take("name"), has_alias=True)
            return
        self._expect("(")
        while not self._accept(")"):
            self._import(self._take("name"), has_alias=False)
            self._accept(",")

    def _import(self, name: _Token, *, has_alias: bool) -> None:
        if name.text not in _COMMON:
            raise TextGrammarError(f"line {name.line}: `common` has no terminal {name.text}")
        alias = self._take("name") if has_alias and self._accept("->") else name
        self._define(alias, regex_of(_COMMON[name.text]))

    # Expressions.

    def _choice(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise TextGrammarError(f"expressions are nested more than {MAX_DEPTH} deep")
        items = [self._series(depth)]
        while self._accept("|"):
            items.append(self._series(depth))
        return Choice(tuple(items)) if len(items) > 1 else items[0]

    def _series(self, depth: int) -> Node:
        items: list[Node] = []
        while self._begins_item(depth):
            items.append(self._repeated(self._item(depth), depth))
        if self._accept("->"):
            self._take("name")
        return Series(tuple(items)) if len(items) != 1 else items[0]

    def _begins_item(self, depth: int) -> bool:
        token = self._peek()
        if token.starts_line and not depth:
            return False
        return token.kind in ("string", "regex", "name") or token.text in ("(", "[")

    def _item(self, depth: int) -> Node:
        token = self._next()
        match token.kind:
            case "string":
                return self._string(token)
            case "regex":
                return _regex(token)
            case "name":
                return Reference(token.text)
            case _:
                inner = self._choice(depth + 1)
                self._expect(")" if token.text == "(" else "]")
                return inner if token.text == "(" else Repeat(inner, 0, 1)

    def _string(self, token: _Token) -> Node:
        text = _text(token)
        if self._accept(".."):
            last = _text(self._take("string"))
            if len(text) != 1 or len(last) != 1 or last < text:
                raise TextGrammarError(f"line {token.line}: a range is of one character to another")
            return regex_of_range(text, last)
        return flagged(regex_of_text(text), "i" if token.text.endswith("i") else "")

    def _repeated(self, item: Node, depth: int) -> Node:
        token = self._peek()
        if token.starts_line and not depth:
            return item
        for sign, (least, most) in _REPEATS.items():
            if self._accept(sign):
                return Repeat(item, least, most)
        if self._accept("~"):
            least = self._count()
            return Repeat(item, least, self._count() if self._accept("..") else least)
        return self._counted(item) if self._accept("{") else item

    def _counted(self, item: Node) -> Node:
        least = most = self._count()
        if self._accept(","):
            most = None if self._peek().text == "}" else self._count()
        self._expect("}")
        return Repeat(item, least, most)

    def _count(self) -> int:
        token = self._take("number")
        if int(token.text) > MAX_REPEAT:
            raise TextGrammarError(f"line {token.line}: a count is over {MAX_REPEAT}")
        return int(token.text)


_REPEATS: Mapping[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}


def _unexpected(token: _Token, expected: str) -> TextGrammarError:
    return TextGrammarError(f"line {token.line}: expected {expected}, not {token.text}")


def _text(token: _Token) -> str:
    body = token.text.removesuffix("i")[1:-1]

    def char(found: re.Match[str]) -> str:
        if code := found[1] or found[2]:
            return chr(int(code, 16))
        if found[3] not in _CONTROLS and found[3] not in _PLAIN_ESCAPES:
            raise TextGrammarError(f"line {token.line}: {found[0]} in a text is not supported")
        return _CONTROLS.get(found[3], found[3])

    return _ESCAPED.sub(char, body)


def _regex(token: _Token) -> Node:
    pattern, _, flags = token.text[1:].rpartition("/")
    if set(flags) - set("imsu"):
        raise TextGrammarError(f"line {token.line}: only the flags i, m, s, u are supported")
    try:
        return flagged(regex_of(pattern), flags.replace("u", ""))
    except TextGrammarError as error:
        raise TextGrammarError(f"line {token.line}: {error}") from None
