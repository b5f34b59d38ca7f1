"""Calls of tools with a grammar for their text: it is enforced, and the text parsed unchanged."""

import re
from functools import cache

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import Dialect, InputGrammar, ParameterForm, ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls
from pensieve.dialects.grammar.answer_grammar import CallLimits, answer_grammar, tool_in_line
from pensieve.dialects.grammar.regex_syntax import TextGrammarError
from pensieve.dialects.grammar.tagged_values import tagged_values_of
from pensieve.dialects.grammar.text_grammar import text_grammar_of
from pensieve.dialects.grammar.text_input import check_enforceable
from tests.dialects.cases import CLOCK, DIALECTS, WEATHER
from tests.dialects.grammar.test_answer_grammar import (
    controls_of,
    in_final,
    is_one_call,
    matcher,
    takes,
    tokens_of,
)
from tests.dialects.grammar.test_law import EXAMPLES as LAW_EXAMPLES
from tests.dialects.grammar.test_law import SEAM, spelled_out
from tests.dialects.grammar.test_text_grammar import python_pattern
from tests.dialects.text_grammars import EXAMPLES, PATCH, PATCHES, RECURSIVE, Example, lark, regex
from tests.reply.test_answer_parser import filled, meaning, read

any_dialect = pytest.mark.parametrize("name", DIALECTS)
both = pytest.mark.parametrize("has_tokens", [True, False], ids=["tokens", "text"])
SCHEMA = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
TOOL = ToolSpec("quartz", "", SCHEMA)
JSON_FORM = {name for name, dialect in DIALECTS.items() if dialect.calls.parameters is None}


def forced(grammar: InputGrammar) -> CallLimits:
    return CallLimits([TOOL], min_calls=1, max_calls=1, texts={"quartz": text_grammar_of(grammar)})


def call_of(dialect: Dialect, text: str) -> str:
    """Return the call as a model writes it, with a seam in each mark that the text spells."""
    form = dialect.calls.parameters
    slots = {"quartz": tagged_values_of(SCHEMA, form)} if form is not None else None
    call = ToolCall("quartz", {"input": text})
    return filled(format_calls(dialect.calls, [call], spelled_out, slots))


@cache
def started(name: str, grammar: InputGrammar, has_tokens: bool) -> LLMatcher:
    return matcher(DIALECTS[name], forced(grammar), has_tokens)


def admits(name: str, grammar: InputGrammar, text: str, *, has_tokens: bool) -> bool:
    parts = call_of(DIALECTS[name], text).split(SEAM)
    tokens = [token for part in parts for token in tokens_of(part, has_tokens)]
    at = started(name, grammar, has_tokens).deep_copy()
    return at.try_consume_tokens(tokens) == len(tokens) and at.is_accepting()


def is_parsed(dialect: Dialect, text: str, size: int) -> bool:
    written = call_of(dialect, text).replace(SEAM, "")
    pieces = [written[start : start + size] for start in range(0, len(written), size)]
    answer = AnswerFormat(dialect, {"quartz": SCHEMA}, has_text=False)
    return meaning(read(answer, pieces)) == [("quartz", {"input": text})]


def text_form(name: str) -> ParameterForm | None:
    """Return a dialect's form of arguments, if it does not escape texts."""
    form = DIALECTS[name].calls.parameters
    return form if form is not None and form.text_end else None


def is_enforceable(dialect: Dialect, grammar: InputGrammar) -> bool:
    try:
        check_enforceable(text_grammar_of(grammar), dialect.calls.parameters)
    except TextGrammarError:
        return False
    return True


@any_dialect
@both
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_text_is_held_to_its_grammar(name: str, has_tokens: bool, example: Example) -> None:
    for text in example.admitted:
        assert admits(name, example.grammar, text, has_tokens=has_tokens), text
        assert is_parsed(DIALECTS[name], text, 1)
    for text in example.refused:
        assert not admits(name, example.grammar, text, has_tokens=has_tokens), text


@any_dialect
@both
def test_recursive_grammar_is_enforced_where_its_text_needs_no_escapes(
    name: str, has_tokens: bool
) -> None:
    for example in RECURSIVE.values():
        if is_enforceable(DIALECTS[name], example.grammar):
            check_recursive(name, example, has_tokens=has_tokens)


def check_recursive(name: str, example: Example, *, has_tokens: bool) -> None:
    for text in example.admitted:
        assert admits(name, example.grammar, text, has_tokens=has_tokens), text
        assert is_parsed(DIALECTS[name], text, 1)
    for text in example.refused:
        assert not admits(name, example.grammar, text, has_tokens=has_tokens), text


@any_dialect
def test_recursive_grammar_that_cannot_be_enforced_is_known(name: str) -> None:
    has_quotes = name in JSON_FORM or name == "lfm2"
    expected = {
        "sum": True,
        "tree": has_quotes,
        # Line breaks are escaped in JSON; in Qwen's form one precedes the closing tag.
        "block": not has_quotes and name != "qwen-coder",
    }
    found = {key: is_enforceable(DIALECTS[name], one.grammar) for key, one in RECURSIVE.items()}
    assert found == expected


# Not for repetitions of repetitions, for which Python takes exponential time.
TEXTS = {
    name: st.from_regex(re.compile(python_pattern(example.grammar)), fullmatch=True)
    for name, example in EXAMPLES.items()
    if name != "ignored"
}
JSON_TEXT = re.compile(r'"(?s:.*)\\[u/](?s:.*)"')


@any_dialect
@given(st.data(), st.sampled_from(sorted(TEXTS)), st.booleans(), st.integers(1, 40))
@settings(max_examples=LAW_EXAMPLES // 4, suppress_health_check=list(HealthCheck), deadline=None)
def test_texts_of_a_grammar_are_admitted_and_parsed_unchanged(
    name: str, data: st.DataObject, key: str, has_tokens: bool, size: int
) -> None:
    text = data.draw(TEXTS[key])
    dialect, form = DIALECTS[name], DIALECTS[name].calls.parameters
    mark = "" if form is None else form.text_end
    assume(not mark or (mark not in text and not JSON_TEXT.fullmatch(text)))
    assume("\x7f" not in text)  # llguidance has it escaped, json.dumps does not
    assert admits(name, EXAMPLES[key].grammar, text, has_tokens=has_tokens)
    assert is_parsed(dialect, text, size)


@any_dialect
@given(
    st.sampled_from(sorted(TEXTS)),
    st.data(),
    st.integers(0, 400),
    st.sampled_from(["", "\n", '"', "\\", "x", "</parameter>", "+", "=", "\t"]),
)
@settings(max_examples=LAW_EXAMPLES // 4, suppress_health_check=list(HealthCheck), deadline=None)
def test_only_texts_of_a_grammar_are_admitted(
    name: str, key: str, data: st.DataObject, at: int, inserted: str
) -> None:
    text = data.draw(TEXTS[key])
    text = text[:at] + inserted + text[at + 1 :]
    grammar = EXAMPLES[key].grammar
    is_match = re.fullmatch(python_pattern(grammar), text) is not None
    assert is_match or not admits(name, grammar, text, has_tokens=False)


@pytest.mark.parametrize("name", [name for name in DIALECTS if text_form(name) is not None])
@both
def test_closing_mark_never_occurs_in_the_text(name: str, has_tokens: bool) -> None:
    dialect, form = DIALECTS[name], text_form(name)
    assert form is not None
    limits = forced(regex("(?s:.*)"))
    end = form.text_end
    # Between tags a text that escapes the mark is read as JSON.
    escaped = f'"a{end.replace("<", chr(92) + "u003c")}b"'
    for text in (f"a{end}b", *([escaped] if form.quote is None else [])):
        call = call_of(dialect, "zebra").replace("zebra", text)
        assert not takes(dialect, limits, call, has_tokens=has_tokens)


@any_dialect
@both
def test_call_with_a_grammar_is_possible_next_to_text_and_other_tools(
    name: str, has_tokens: bool
) -> None:
    dialect = DIALECTS[name]
    tools = [ToolSpec("get_weather", "", WEATHER), TOOL, ToolSpec("clock", "", CLOCK)]
    limits = CallLimits(tools, texts={"quartz": text_grammar_of(PATCH)})
    assert takes(dialect, limits, in_final(dialect, "Hello."), has_tokens=has_tokens)
    for text in PATCHES:
        written = call_of(dialect, text).replace(SEAM, "")
        assert takes(dialect, limits, written, has_tokens=has_tokens)
        if not is_one_call(dialect):
            several = f"First.\n{written}{dialect.calls.between}{written}"
            assert takes(dialect, limits, several, has_tokens=has_tokens)
    wrong = call_of(dialect, PATCHES[0] + "x").replace(SEAM, "")
    assert not takes(dialect, limits, wrong, has_tokens=has_tokens)


def test_call_or_text_of_a_schema_keeps_the_grammar() -> None:
    dialect = DIALECTS["llama3"]
    text = text_grammar_of(regex("[0-9]{3}"))
    limits = CallLimits([TOOL], schema={"type": "integer"}, texts={"quartz": text})
    assert takes(dialect, limits, "5")
    assert takes(dialect, limits, call_of(dialect, "123"))
    assert not takes(dialect, limits, call_of(dialect, "12"))
    recursive = text_grammar_of(RECURSIVE["sum"].grammar)
    limits = CallLimits([TOOL], schema={"type": "integer"}, texts={"quartz": recursive})
    assert takes(dialect, limits, "5")
    assert not takes(dialect, limits, call_of(dialect, "(1)"))


@any_dialect
def test_lines_of_a_text_grammar_belong_to_its_tool(name: str) -> None:
    tools = [ToolSpec("clock", "", CLOCK), TOOL]
    for grammar in (regex("zebra"), lark('start: "zebra" start | NUMBER\nNUMBER: /[0-9]+/')):
        limits = CallLimits(tools, texts={"quartz": text_grammar_of(grammar)})
        written = answer_grammar(DIALECTS[name], limits, controls_of(False)).splitlines()
        lines = [at for at, line in enumerate(written, 1) if "zebra" in line]
        assert lines
        assert {tool_in_line("\n".join(written), line) for line in lines} == {1}
