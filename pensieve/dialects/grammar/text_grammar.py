"""What the text input of a tool must match: a client's regular expression or Lark grammar.

A Lark grammar without recursion is one regular expression, which is enforced exactly wherever a
text can stand, also through the escapes of a JSON string. A recursive one becomes rules, whose
terminals llguidance finds one after the other, each as long as possible. That is exact only if no
text contains a character that the place of the text escapes or ends by: `may_contain` tells.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from pensieve.dialects.dialect import InputGrammar
from pensieve.dialects.grammar.lark import one_of
from pensieve.dialects.grammar.lark_syntax import (
    Choice,
    LarkGrammar,
    Node,
    Reference,
    Repeat,
    Series,
    is_terminal,
    lark_grammar_of,
)
from pensieve.dialects.grammar.regex_syntax import MAX_CHARS, Regex, TextGrammarError, regex_of

START = "start"
# Of one definition without names, and of all together.
MAX_INLINED_CHARS = 2 * MAX_CHARS
MAX_ALL_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class RecursiveGrammar:
    rules: Mapping[str, Node]
    terminals: Mapping[str, str]  # as regular expressions
    ignored: str  # between terminals; empty if nothing is

    def written(self, prefix: str) -> dict[str, str]:
        """Return llguidance's rules, the first one being that of the whole text."""
        return _RuleWriter(self, prefix).rules()


@dataclass(frozen=True, slots=True)
class TextGrammar:
    pattern: str | None  # of the whole text; None: `recursive` has it
    atoms: Regex  # of all terminals
    recursive: RecursiveGrammar | None = None

    def may_contain(self, chars: Iterable[str]) -> bool:
        """Return whether a text may have one of `chars`."""
        return self.atoms.may_contain(chars)


def text_grammar_of(source: InputGrammar) -> TextGrammar:
    """Raises `TextGrammarError`."""
    if source.syntax == "regex":
        regex = regex_of(source.definition, is_whole=True)
        return TextGrammar(regex.text, regex)
    return _from_lark(lark_grammar_of(source.definition))


def _from_lark(grammar: LarkGrammar) -> TextGrammar:
    nodes = _reachable(grammar)
    references = {name: set(_references(node)) for name, node in nodes.items()}
    atoms = Regex("", frozenset(_atoms([*nodes.values(), grammar.ignored])))
    inliner = _Inliner(grammar.ignored)
    terminals = {name: found for name, found in references.items() if is_terminal(name)}
    if (order := _order(terminals)) is None:
        raise TextGrammarError("a terminal contains itself")
    for name in order:
        inliner.inline(name, nodes[name])
    if (order := _order(references)) is None:
        rules = {name: node for name, node in nodes.items() if not is_terminal(name)}
        recursive = RecursiveGrammar(rules, inliner.inlined, inliner.ignored)
        return TextGrammar(None, atoms, recursive)
    for name in order:
        if not is_terminal(name):
            inliner.inline(name, nodes[name])
    return TextGrammar(inliner.ignored + inliner.inlined[START], atoms)


def _order(references: Mapping[str, set[str]]) -> list[str] | None:
    """Return each name after those that it refers to; None if one refers to itself."""
    try:
        return [*TopologicalSorter(references).static_order()]
    except CycleError:
        return None


def _reachable(grammar: LarkGrammar) -> dict[str, Node]:
    """Return the definitions that the start rule needs, which is the first."""
    found: dict[str, Node] = {}
    pending = [START, *_references(grammar.ignored)]
    for name in pending:
        if name in found:
            continue
        if name not in grammar.definitions:
            raise TextGrammarError(f"{name} is not defined")
        found[name] = grammar.definitions[name]
        names = list(_references(found[name]))
        if is_terminal(name) and not all(map(is_terminal, names)):
            raise TextGrammarError(f"the terminal {name} refers to a rule")
        pending += names
    if grammar.ignored is not None and not all(map(is_terminal, _references(grammar.ignored))):
        raise TextGrammarError("%ignore refers to a rule")
    return found


def _leaves(node: Node | None) -> Iterator[Regex | Reference]:
    match node:
        case None:
            return
        case Regex() | Reference():
            yield node
        case Repeat(item=item):
            yield from _leaves(item)
        case Series(items=items) | Choice(items=items):
            for item in items:
                yield from _leaves(item)


def _references(node: Node | None) -> Iterator[str]:
    return (leaf.name for leaf in _leaves(node) if isinstance(leaf, Reference))


def _atoms(nodes: Iterable[Node | None]) -> Iterator[str]:
    for node in nodes:
        for leaf in _leaves(node):
            if isinstance(leaf, Regex):
                yield from leaf.atoms


class _Inliner:
    """Owns the definitions as regular expressions. Those that one refers to precede it."""

    def __init__(self, ignored: Node | None) -> None:
        self.inlined: dict[str, str] = {}
        self._ignored = ignored
        self._chars = 0

    @property
    def ignored(self) -> str:
        """Return what may follow every terminal of a rule. Requires all terminals."""
        return "" if self._ignored is None else f"(?:{self._regex(self._ignored, '')})*"

    def inline(self, name: str, node: Node) -> None:
        self.inlined[name] = self._regex(node, "" if is_terminal(name) else self.ignored)
        self._chars += len(self.inlined[name])
        if self._chars > MAX_ALL_CHARS:
            raise TextGrammarError("the grammar is too large without its names")

    def _regex(self, node: Node, ignored: str) -> str:
        match node:
            case Regex(text=text):
                return self._joined("(?:", [text], f"){ignored}")
            case Reference(name=name):
                after = ignored if is_terminal(name) else ""
                return self._joined("", [self.inlined[name]], after)
            case Series(items=items):
                return self._joined("(?:", [self._regex(one, ignored) for one in items], ")")
            case Choice(items=items):
                inner = [self._regex(one, ignored) for one in items]
                return self._joined("(?:", inner, ")", separator="|")
            case Repeat(item=item):
                return self._joined("(?:", [self._regex(item, ignored)], f"){_count(node)}")

    def _joined(self, before: str, parts: list[str], after: str, separator: str = "") -> str:
        if sum(map(len, parts)) + len(after) > MAX_INLINED_CHARS:
            raise TextGrammarError("the grammar is too large without its names")
        return before + separator.join(parts) + after


def _count(node: Repeat) -> str:
    match node.min, node.max:
        case 0, 1:
            return "?"
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case least, most:
            return f"{{{least},{'' if most is None else most}}}"


class _RuleWriter:
    def __init__(self, grammar: RecursiveGrammar, prefix: str) -> None:
        self._grammar = grammar
        self._ignored = f"{prefix}_ignored".upper() if grammar.ignored else ""
        names = {name: f"{prefix}_r{at}" for at, name in enumerate(grammar.rules)}
        names |= {name: f"{prefix}_t{at}".upper() for at, name in enumerate(grammar.terminals)}
        self._names = names

    def rules(self) -> dict[str, str]:
        names, grammar = self._names, self._grammar
        rules = {names[name]: self._written(node) for name, node in grammar.rules.items()}
        if grammar.ignored:
            rules[names[START]] = f"{self._ignored}? {rules[names[START]]}"
            rules[self._ignored] = _terminal(grammar.ignored.removesuffix("*") + "+")
        rules |= {names[name]: _terminal(text) for name, text in grammar.terminals.items()}
        return rules

    def _written(self, node: Node) -> str:
        match node:
            case Regex(text=text):
                return self._spaced(_terminal(text)) if text else '""'
            case Reference(name=name):
                return self._spaced(self._names[name]) if is_terminal(name) else self._names[name]
            case Series(items=items):
                return f"({' '.join(map(self._written, items))})" if items else '""'
            case Choice(items=items):
                return one_of([self._written(item) for item in items])
            case Repeat(item=item):
                return f"({self._written(item)}){_count(node)}"

    def _spaced(self, terminal: str) -> str:
        return f"{terminal} {self._ignored}?" if self._ignored else terminal


def _terminal(text: str) -> str:
    return f"/{text}/"
