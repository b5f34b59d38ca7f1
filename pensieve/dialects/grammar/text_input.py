"""Write the arguments of a tool that takes one text, which a client's grammar describes.

Invariant: reply reads the text that the grammar describes. In JSON llguidance escapes it; between
marks it contains neither the mark nor what would be read as JSON.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pensieve.dialects.dialect import ParameterForm, Schema
from pensieve.dialects.grammar.lark import Literals, holds, json_of, quoted
from pensieve.dialects.grammar.regex_syntax import TextGrammarError
from pensieve.dialects.grammar.text_grammar import TextGrammar
from pensieve.dialects.parameter_names import written_name

PARAMETER = "input"

_CONTROLS = "".join(map(chr, range(32)))
# Between tags this is read as JSON if it escapes the closing tag.
_JSON_TEXT = r'"(?s:.*)\\[u\/](?s:.*)"'


def check_enforceable(grammar: TextGrammar, form: ParameterForm | None) -> None:
    """Raise `TextGrammarError` if `grammar` cannot be enforced in arguments of this form.

    The rules of a recursive one know no escapes, and no mark that ends the text.
    """
    if grammar.recursive is None:
        return
    excluded = _excluded(form)
    if grammar.may_contain(excluded):
        names = [char for char in excluded if char.isprintable()]
        names += ["line breaks"] if "\n" in excluded else []
        raise TextGrammarError(
            "it is recursive, and then this model can be held to it only if no terminal matches"
            f" any of: {' '.join(names)}"
        )


def _excluded(form: ParameterForm | None) -> str:
    if form is None or form.quote == '"':
        return f'"\\{_CONTROLS}'
    if form.quote is not None:
        return form.quote[0]
    line_break = "\n" if form.after_value.startswith("\n") else ""
    return f"{form.text_end[0]}\\{line_break}"


def text_schema(grammar: TextGrammar) -> Schema:
    """Return a JSON Schema for the arguments. Requires a grammar without recursion."""
    return {
        "type": "object",
        "properties": {PARAMETER: _string(grammar)},
        "required": [PARAMETER],
        "additionalProperties": False,
    }


def _string(grammar: TextGrammar) -> Schema:
    return {"type": "string", "pattern": f"^{grammar.pattern}$"}


@dataclass(frozen=True, slots=True)
class TextInput:
    """Writes rules for one tool. rule: adds a rule with a name and body, and returns its name."""

    form: ParameterForm | None
    literals: Literals
    rule: Callable[..., str]
    name: str
    grammar: TextGrammar

    def written(self) -> str:
        form = self.form
        if form is None and self.grammar.recursive is None:
            return self.rule(self.name, json_of(text_schema(self.grammar)))
        if form is None:
            return self._recursive(quoted(f'{{"{PARAMETER}": "'), quoted('"}'))
        name = written_name(form, PARAMETER)
        head = self.literals.around(form.before_key, name, form.after_key)
        return f"{head} {self._value(form)}"

    def _value(self, form: ParameterForm) -> str:
        opening, end = form.quote or "", form.quote or form.after_value
        if self.grammar.recursive is not None:
            return self._recursive(self.literals.literal(opening), self.literals.literal(end))
        if form.quote == '"':
            return self.rule(f"{self.name}_value", json_of(_string(self.grammar)))
        return f"{self.literals.literal(opening)} {self._text_up_to(end)}".strip()

    def _recursive(self, before: str, after: str) -> str:
        assert self.grammar.recursive is not None
        rules = self.grammar.recursive.written(self.name)
        for name, body in rules.items():
            self.rule(name, body)
        return f"{before} {next(iter(rules))} {after}".strip()

    def _text_up_to(self, end: str) -> str:
        conditions = [f"/{self.grammar.pattern}/", f"~/{holds(end.strip())}/"]
        if self.form is not None and self.form.quote is None:
            conditions.append(f"~/{_JSON_TEXT}/")
        text = self._terminal("text", " & ".join(conditions))
        closing = self.literals.from_token(end)
        if closing is None:
            return self._terminal("plain", f"{text} {quoted(end)}")
        line_break = end[: len(end) - len(end.lstrip())]
        if line_break:
            text = self._terminal("lines", f"{text} {quoted(line_break)}")
        return f"{text} {closing}"

    def _terminal(self, name: str, body: str) -> str:
        return self.rule(f"{self.name}_{name}".upper(), body)
