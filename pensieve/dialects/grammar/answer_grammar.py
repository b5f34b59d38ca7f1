"""What an answer may be, as a grammar in llguidance's Lark: a dialect's calls of the tools at hand, in text or alone.

Law: whatever the grammar lets through, reply reads as it is meant. So the marks of calls and thoughts stand nowhere else: a mark
that is a token of its own is written as that token, and no text may spell it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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

# So many calls in one answer: a model that goes on and on is stopped.
MAX_CALLS = 16

_TOOL = re.compile(r"(?:fenced_|more_|next_)?tool(\d+)")
_HOLE = re.compile(f"({'|'.join(map(re.escape, HOLES))})")
_FENCE = "```json\n"
_LINE_BREAK = "\n"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What an answer may hold.

    tools: that may be called, `least` to `most` times; where there is a least, there is no text. schema: of the text, which is
    JSON then. thought: "begun" where the prompt opens it, "possible" where the model may. thinking_tokens: after so many
    the thought is closed.
    """

    tools: Sequence[ToolSpec] = ()
    min_calls: int = 0
    max_calls: int = MAX_CALLS
    schema: Schema | None = None
    thought: Thought = "none"
    thinking_tokens: int | None = None


def answer_grammar(dialect: Dialect, wanted: CallLimits, controls: Mapping[str, int]) -> str:
    """The grammar's text. controls: the model's control tokens by their texts."""
    return _Grammar(dialect, wanted, Literals(controls)).text()


def tool_in_line(lark: str, line: int) -> int | None:
    """Which of the tools a line of a grammar's text, counted from 1, is about."""
    lines = lark.splitlines()
    found = _TOOL.match(lines[line - 1]) if 0 < line <= len(lines) else None
    return int(found[1]) if found else None


class _Grammar:
    """Owns the rules while they are written."""

    def __init__(self, dialect: Dialect, wanted: CallLimits, literals: Literals) -> None:
        self._dialect = dialect
        self._form = dialect.calls
        self._wanted = wanted
        self._literals = literals
        self._rules: dict[str, str] = {}

    def text(self) -> str:
        """All of it."""
        start = " ".join([*self._thought(), self._answer()])
        rules = [f"start: {start}", *(f"{name}: {body}" for name, body in self._rules.items())]
        return "\n".join(rules) + "\n"

    def _rule(self, name: str, body: str, *, attributes: str = "") -> str:
        self._rules[name + attributes] = body
        return name

    def _answer(self) -> str:
        wanted = self._wanted
        call = self._tools() if wanted.tools and wanted.max_calls else None
        opening = self._literals.literal(self._dialect.text_opening)
        if wanted.schema is not None:
            if call and not self._form.opening:
                return self._rule("answer", json_of(self._json_or_call(wanted.schema)))
            answer = f"{opening} {self._rule('answer', json_of(wanted.schema))}".strip()
            return one_of([answer, self._calls(call)]) if call else answer
        if call is None:
            return f"{opening} {self._rule('TEXT', text_without(*self._marks()))}".strip()
        return self._calls(call) if wanted.min_calls else one_of(self._text_and_calls(call))

    def _json_or_call(self, schema: Schema) -> Schema:
        """Both are JSON that begins alike, so they are one schema. One that refers to its parts cannot be a part of it."""
        if self._form.keys is None or any(
            "$ref" in str(tool.schema) for tool in self._wanted.tools
        ):
            return schema
        name, arguments = self._form.keys
        calls = [
            {
                "type": "object",
                "properties": {name: {"const": tool.name}, arguments: tool.schema},
                "required": [name, arguments],
                "additionalProperties": False,
            }
            for tool in self._wanted.tools
        ]
        return schema if "$ref" in str(schema) else {"anyOf": [schema, *calls]}

    # Calls.

    def _tools(self, prefix: str = "", begun: str = "") -> str:
        """A rule for a call of any tool, without the marks around it, behind what has `begun` it."""
        calls = [
            self._rule(f"{prefix}tool{at}", " ".join(self._call(f"tool{at}", tool, begun)))
            for at, tool in enumerate(self._wanted.tools)
        ]
        return self._rule(f"{prefix}call", one_of(calls))

    def _call(self, name: str, tool: ToolSpec, begun: str) -> Iterator[str]:
        form = self._form
        yield from self._filled(begun + form.before_name + tool.name + form.after_name)
        if form.parameters is None:
            yield self._rule(f"{name}_input", json_of(tool.schema))
        else:
            writer = Parameters(form.parameters, self._literals, self._rule, tool.schema)
            yield self._rule(f"{name}_input", writer.written(f"{name}_input"))
        if form.after_arguments:
            yield from self._filled(form.after_arguments)

    def _filled(self, text: str) -> Iterator[str]:
        """A literal with what the model makes up in its holes."""
        for part in _HOLE.split(text):
            yield f"/{HOLES[part]}/" if part in HOLES else self._literals.literal(part)

    def _section(self, call: str) -> str:
        """One section behind its opening mark."""
        form, literal = self._form, self._literals.literal
        if form.separator is not None and self._wanted.max_calls > 1:
            # The separator is one literal with the name: the section's closing may begin as it does.
            call += f" {self._tools('more_', form.separator)}{{0,{self._wanted.max_calls - 1}}}"
        return f"{literal(form.inside[0])} {call} {literal(form.inside[1] + form.closing)}".strip()

    def _calls(self, call: str) -> str:
        """Calls, and nothing else."""
        section = f"{self._literals.literal(self._form.opening)} {self._section(call)}".strip()
        section = self._rule("calls", section)
        if self._wanted.max_calls == 1 or self._is_one() or self._form.separator is not None:
            return section
        more = f"{self._literals.literal(self._form.between)} {section}".strip()
        return f"{section} ({more}){{0,{self._wanted.max_calls - 1}}}"

    def _is_one(self) -> bool:
        """Whether the family has answers of one call at most."""
        return not self._form.opening or bool(self._dialect.text_opening)

    def _text_and_calls(self, call: str) -> list[str]:
        """What an answer may be when calls are free: text alone, calls in text, a call alone where the dialect has that."""
        only_text = self._rule("ONLY_TEXT", text_without(*self._marks(), *self._bare_beginnings()))
        if self._is_one():
            opening = self._literals.literal(self._dialect.text_opening)
            return [self._calls(call), f"{opening} {only_text}".strip()]
        answers = [self._bare(call)] if self._dialect.has_bare_calls else []
        first = self._lead("first", *self._bare_beginnings())
        body = self._rule("body", self._section(call))
        if self._wanted.max_calls == 1:
            return [*answers, only_text, f"{first} {body}"]
        more = f"({self._lead('next')} {body}){{0,{self._wanted.max_calls - 1}}}"
        text = self._rule("TEXT", text_without(*self._marks()))
        return [*answers, only_text, f"{first} {body} {more} {text}"]

    def _lead(self, name: str, *excluded: str) -> str:
        """Any text, and the mark that opens a section."""
        opening = self._form.opening
        if self._literals.is_token(opening):
            text = self._rule(f"{name.upper()}_TEXT", text_without(*self._marks(), *excluded))
            return f"{text} {self._literals.literal(opening)}"
        text = text_up_to(opening, *self._other_marks(), *excluded)
        return self._rule(name, text, attributes="[lazy]")

    def _marks(self) -> list[str]:
        """Texts that hold a mark that would be read."""
        opening = self._form.opening
        return [*([holds(opening)] if opening else []), *self._other_marks()]

    def _other_marks(self) -> list[str]:
        marks = [*self._dialect.silent]
        if self._wanted.thought == "possible" and self._dialect.thinking is not None:
            marks.append(self._dialect.thinking.opening)
        return [holds(mark) for mark in marks]

    def _bare_beginnings(self) -> list[str]:
        """Texts that begin as a call alone does."""
        if self._form.keys is None or not (self._dialect.has_bare_calls or not self._form.opening):
            return []
        return [rf'\s*(```[a-z]*\s*)?\{{\s*"{self._form.keys[0]}"{ANY}']

    def _bare(self, call: str) -> str:
        """What begins it is one literal with the name, so that no text can be taken for its beginning."""
        more = ""
        if self._wanted.max_calls > 1:
            more = f" {self._tools('next_', _LINE_BREAK)}{{0,{self._wanted.max_calls - 1}}}"
        return one_of([f"{call}{more}", f'{self._tools("fenced_", _FENCE)}{more} "\\n```"'])

    # Thoughts.

    def _thought(self) -> list[str]:
        form, wanted = self._dialect.thinking, self._wanted
        if form is None or wanted.thought == "none":
            return []
        thought = self._rule("thought", self._thought_to_its_end(form))
        # The line breaks behind a thought are the template's, not the answer's.
        after = self._literals.literal(form.after) or r"/\n{0,2}/"
        if wanted.thought == "begun":
            return [thought, after]
        # Before it too, where the prompt ends before them (GLM-4.5: `<|assistant|>`, and then a line of `<think>`).
        return [f"(/[ \\n]{{0,2}}/ {self._literals.literal(form.opening)} {thought} {after})?"]

    def _thought_to_its_end(self, form: ThinkingForm) -> str:
        """A limit holds only where the end is a token: a text's end is found in the text that the limit would cut."""
        if not self._literals.is_token(form.closing):
            return self._rule("thought_text", text_up_to(form.closing), attributes="[lazy]")
        limit = self._wanted.thinking_tokens
        text = self._rule(
            "thought_text",
            self._rule("THOUGHT", text_without(holds(form.closing))),
            attributes="" if limit is None else f"[max_tokens={limit}]",
        )
        return f"{text} {self._literals.literal(form.closing)}"
