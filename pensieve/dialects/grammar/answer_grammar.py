"""Build an answer's grammar in llguidance's Lark: a dialect's calls, in text or alone.

Invariant: reply parses whatever the grammar admits as it was meant. So marks of calls and thoughts
occur nowhere else: a mark that is a control token is written as that token, and no text may spell
it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pensieve.dialects.dialect import HOLES, Dialect, Schema, ThinkingForm, Thought, ToolSpec
from pensieve.dialects.grammar.lark import (
    ANY,
    Literals,
    holds,
    json_of,
    one_of,
    text_up_to,
    text_without,
)
from pensieve.dialects.grammar.parameters import Parameters
from pensieve.dialects.grammar.text_grammar import TextGrammar
from pensieve.dialects.grammar.text_input import TextInput, text_schema

# Calls in one answer. Stops a model that repeats itself.
MAX_CALLS = 16

_TOOL = re.compile(r"(?:fenced_|more_|next_)?tool(\d+)", re.IGNORECASE)
_HOLE = re.compile(f"({'|'.join(map(re.escape, HOLES))})")
_FENCE = "```json\n"
_LINE_BREAK = "\n"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What an answer may contain."""

    tools: Sequence[ToolSpec] = ()  # callable ones
    min_calls: int = 0  # above 0 there is no text
    max_calls: int = MAX_CALLS
    schema: Schema | None = None  # of the text, which then is JSON
    thought: Thought = "none"
    thinking_tokens: int | None = None  # the thought is closed after this many
    # Of the tools whose input is a text of a grammar, by name. Each can be enforced.
    texts: Mapping[str, TextGrammar] = field(default_factory=dict[str, TextGrammar])


def answer_grammar(dialect: Dialect, limits: CallLimits, controls: Mapping[str, int]) -> str:
    """Return the grammar's text. controls: the model's control tokens by their texts."""
    return _Grammar(dialect, limits, Literals(controls)).text()


def tool_in_line(lark: str, line: int) -> int | None:
    """Return the index of the tool that a line of a grammar's text is about, counted from 1."""
    lines = lark.splitlines()
    found = _TOOL.match(lines[line - 1]) if 0 < line <= len(lines) else None
    return int(found[1]) if found else None


class _Grammar:
    """Owns the rules during construction."""

    def __init__(self, dialect: Dialect, limits: CallLimits, literals: Literals) -> None:
        self._dialect = dialect
        self._form = dialect.calls
        self._limits = limits
        self._literals = literals
        self._rules: dict[str, str] = {}

    def text(self) -> str:
        start = " ".join([*self._thought(), self._answer()])
        rules = [f"start: {start}", *(f"{name}: {body}" for name, body in self._rules.items())]
        return "\n".join(rules) + "\n"

    def _rule(self, name: str, body: str, *, attributes: str = "") -> str:
        self._rules[name + attributes] = body
        return name

    def _answer(self) -> str:
        limits = self._limits
        call = self._tools() if limits.tools and limits.max_calls else None
        opening = self._literals.literal(self._dialect.text_opening)
        if limits.schema is not None:
            if call and not self._form.opening:
                return self._rule("answer", json_of(self._json_or_call(limits.schema)))
            answer = f"{opening} {self._rule('answer', json_of(limits.schema))}".strip()
            return one_of([answer, self._calls(call)]) if call else answer
        if call is None:
            return f"{opening} {self._rule('TEXT', text_without(*self._marks()))}".strip()
        return self._calls(call) if limits.min_calls else one_of(self._text_and_calls(call))

    def _json_or_call(self, schema: Schema) -> Schema:
        """Return one schema for both, since their JSON begins alike. Not possible with `$ref`."""
        if self._form.keys is None or any(
            "$ref" in str(tool.schema) for tool in self._limits.tools
        ):
            return schema
        name, arguments = self._form.keys
        calls = [
            {
                "type": "object",
                "properties": {name: {"const": tool.name}, arguments: tool_schema},
                "required": [name, arguments],
                "additionalProperties": False,
            }
            for tool in self._limits.tools
            if (tool_schema := self._schema(tool)) is not None
        ]
        return schema if "$ref" in str(schema) else {"anyOf": [schema, *calls]}

    def _schema(self, tool: ToolSpec) -> Schema | None:
        """Return the schema of a tool's arguments; None if its grammar cannot be one."""
        text = self._limits.texts.get(tool.name)
        if text is None:
            return tool.schema
        return text_schema(text) if text.recursive is None else None

    # Calls.

    def _tools(self, prefix: str = "", begun: str = "") -> str:
        """Return a rule for a call of any tool, without the outer marks, after the text `begun`."""
        calls = [
            self._rule(f"{prefix}tool{at}", " ".join(self._call(f"tool{at}", tool, begun)))
            for at, tool in enumerate(self._limits.tools)
        ]
        return self._rule(f"{prefix}call", one_of(calls))

    def _call(self, name: str, tool: ToolSpec, begun: str) -> Iterator[str]:
        form = self._form
        yield from self._filled(begun + form.before_name + tool.name + form.after_name)
        text = self._limits.texts.get(tool.name)
        if text is not None:
            writer = TextInput(form.parameters, self._literals, self._rule, f"{name}_input", text)
            yield writer.written()
        elif form.parameters is None:
            yield self._rule(f"{name}_input", json_of(tool.schema))
        else:
            writer = Parameters(form.parameters, self._literals, self._rule, tool.schema)
            yield self._rule(f"{name}_input", writer.written(f"{name}_input"))
        if form.after_arguments:
            yield from self._filled(form.after_arguments)

    def _filled(self, text: str) -> Iterator[str]:
        """Yield a literal, with patterns for what the model makes up."""
        for part in _HOLE.split(text):
            yield f"/{HOLES[part]}/" if part in HOLES else self._literals.literal(part)

    def _section(self, call: str) -> str:
        """Return one section, without its opening mark."""
        form, literal = self._form, self._literals.literal
        if form.separator is not None and self._limits.max_calls > 1:
            # One literal for separator and name: the section may close with the same characters.
            call += f" {self._tools('more_', form.separator)}{{0,{self._limits.max_calls - 1}}}"
        return f"{literal(form.inside[0])} {call} {literal(form.inside[1] + form.closing)}".strip()

    def _calls(self, call: str) -> str:
        """Return calls without text."""
        section = f"{self._literals.literal(self._form.opening)} {self._section(call)}".strip()
        section = self._rule("calls", section)
        if self._limits.max_calls == 1 or self._is_one() or self._form.separator is not None:
            return section
        more = f"{self._literals.literal(self._form.between)} {section}".strip()
        return f"{section} ({more}){{0,{self._limits.max_calls - 1}}}"

    def _is_one(self) -> bool:
        """Return whether the family has answers of one call at most."""
        return not self._form.opening or bool(self._dialect.text_opening)

    def _text_and_calls(self, call: str) -> list[str]:
        """Return the alternatives of an answer with optional calls.

        Text alone, calls in text, a bare call if the dialect has that.
        """
        only_text = self._rule("ONLY_TEXT", text_without(*self._marks(), *self._bare_beginnings()))
        if self._is_one():
            opening = self._literals.literal(self._dialect.text_opening)
            return [self._calls(call), f"{opening} {only_text}".strip()]
        answers = [self._bare(call)] if self._dialect.has_bare_calls else []
        first = self._lead("first", *self._bare_beginnings())
        body = self._rule("body", self._section(call))
        if self._limits.max_calls == 1:
            return [*answers, only_text, f"{first} {body}"]
        more = f"({self._lead('next')} {body}){{0,{self._limits.max_calls - 1}}}"
        text = self._rule("TEXT", text_without(*self._marks()))
        return [*answers, only_text, f"{first} {body} {more} {text}"]

    def _lead(self, name: str, *excluded: str) -> str:
        """Return any text up to and including the mark that opens a section."""
        opening = self._form.opening
        if self._literals.is_token(opening):
            text = self._rule(f"{name.upper()}_TEXT", text_without(*self._marks(), *excluded))
            return f"{text} {self._literals.literal(opening)}"
        text = text_up_to(opening, *self._other_marks(), *excluded)
        return self._rule(name, text, attributes="[lazy]")

    def _marks(self) -> list[str]:
        """Return patterns of texts that contain a mark which would be parsed."""
        opening = self._form.opening
        return [*([holds(opening)] if opening else []), *self._other_marks()]

    def _other_marks(self) -> list[str]:
        marks = [*self._dialect.silent]
        if self._limits.thought == "possible" and self._dialect.thinking is not None:
            marks.append(self._dialect.thinking.opening)
        return [holds(mark) for mark in marks]

    def _bare_beginnings(self) -> list[str]:
        """Return patterns of texts that begin like a bare call."""
        if self._form.keys is None or not (self._dialect.has_bare_calls or not self._form.opening):
            return []
        return [rf'\s*(```[a-z]*\s*)?\{{\s*"{self._form.keys[0]}"{ANY}']

    def _bare(self, call: str) -> str:
        """Return bare calls. Beginning and name are one literal, which no text matches."""
        more = ""
        if self._limits.max_calls > 1:
            more = f" {self._tools('next_', _LINE_BREAK)}{{0,{self._limits.max_calls - 1}}}"
        return one_of([f"{call}{more}", f'{self._tools("fenced_", _FENCE)}{more} "\\n```"'])

    # Thoughts.

    def _thought(self) -> list[str]:
        form, limits = self._dialect.thinking, self._limits
        if form is None or limits.thought == "none":
            return []
        thought = self._rule("thought", self._thought_to_its_end(form))
        # Line breaks after a thought belong to the template, not the answer.
        after = self._literals.literal(form.after) or r"/\n{0,2}/"
        if limits.thought == "begun":
            return [thought, after]
        # Also before it, if the prompt ends there (GLM-4.5: `<|assistant|>`, then `<think>` on a
        # new line).
        return [f"(/[ \\n]{{0,2}}/ {self._literals.literal(form.opening)} {thought} {after})?"]

    def _thought_to_its_end(self, form: ThinkingForm) -> str:
        """Return the rest of a thought with its end.

        A limit applies only if the end is a token: otherwise the end is part of the limited text.
        """
        if not self._literals.is_token(form.closing):
            return self._rule("thought_text", text_up_to(form.closing), attributes="[lazy]")
        limit = self._limits.thinking_tokens
        text = self._rule(
            "thought_text",
            self._rule("THOUGHT", text_without(holds(form.closing))),
            attributes="" if limit is None else f"[max_tokens={limit}]",
        )
        return f"{text} {self._literals.literal(form.closing)}"
