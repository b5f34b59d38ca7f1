"""Clients' grammars of a text: what they admit, and which are refused, and why."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.dialects.dialect import InputGrammar
from pensieve.dialects.grammar.regex_syntax import TextGrammarError, regex_of
from pensieve.dialects.grammar.text_grammar import text_grammar_of
from tests.dialects.text_grammars import EXAMPLES, INVALID, RECURSIVE, Example, lark, regex


def python_pattern(grammar: InputGrammar) -> str:
    """Return the expression in Python's syntax, in which these do not differ but for one escape."""
    pattern = text_grammar_of(grammar).pattern
    assert pattern is not None
    return re.sub(r"\\x\{([0-9a-f]{2})\}", r"\\x\1", pattern)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_grammar_without_recursion_is_one_expression(example: Example) -> None:
    pattern = python_pattern(example.grammar)
    assert all(re.fullmatch(pattern, text) for text in example.admitted)
    assert not any(re.fullmatch(pattern, text) for text in example.refused)


@pytest.mark.parametrize("example", RECURSIVE.values(), ids=RECURSIVE)
def test_recursive_grammar_is_rules_of_their_own_names(example: Example) -> None:
    grammar = text_grammar_of(example.grammar)
    assert grammar.pattern is None
    assert grammar.recursive is not None
    rules = grammar.recursive.written("tool0_input")
    assert next(iter(rules)) == "tool0_input_r0"
    assert all(name.lower().startswith("tool0_input_") for name in rules)


@pytest.mark.parametrize(("grammar", "reason"), INVALID.values(), ids=INVALID)
def test_grammar_that_cannot_be_read_is_refused_with_the_reason(
    grammar: InputGrammar, reason: str
) -> None:
    with pytest.raises(TextGrammarError, match=reason):
        text_grammar_of(grammar)


def test_rule_that_is_not_needed_may_be_recursive() -> None:
    assert text_grammar_of(lark('start: "a"\nb: "(" b ")"')).pattern is not None


def test_characters_that_a_text_may_contain_are_known() -> None:
    chars = '"\\\n<'

    def found(pattern: str) -> str:
        grammar = text_grammar_of(regex(pattern))
        return "".join(char for char in chars if grammar.may_contain(char))

    assert [found(one) for one in ("[a-z]+", "<a>", r"\s", r'"\\', "[^a]")] == [
        *("", "<", "\n", '"\\', chars),
    ]
    assert found(r"\p{Greek}") == chars  # not known


PIECES = st.sampled_from(
    [
        *"ab-/{}]#& \n\t\"'é,~<.|",
        *(r"\d", r"\W", r"\.", r"\\", r"\/", r"\-", r"\n", r"\x41", r"\"", r"\<", r"\ "),
        *("[ab]", "[^a]", "[]a]", "[^]a]", "[a-c-]", r"[\]\\/]", r"[\w^-]", "[{}#~&]", "[<\n|]"),
        *("(a|b)", "(?:a|)", "(?P<n>ab)", "(?i:Ab)", "a*", "a+?", "(?:ab){2}", "b{0,2}", "c??"),
    ]
)


@given(st.lists(PIECES, max_size=6).map("".join), st.text('abAB-/{}]#& \n\t"é\\,.<5', max_size=6))
def test_rewritten_expression_matches_what_it_did(pattern: str, text: str) -> None:
    original = pattern.replace("(?P<n>", "(")
    matches = re.fullmatch(f"(?:{original})", text) is not None
    assert (re.fullmatch(regex_of(pattern, is_whole=True).text, text) is not None) == matches


@given(st.text('ab|()[]{}?*+^$\\.,:<P=!i-12&~"/\n', max_size=24))
def test_any_text_is_an_expression_in_python_or_refused(pattern: str) -> None:
    try:
        found = regex_of(pattern, is_whole=True)
    except TextGrammarError:
        return
    re.compile(found.text.replace("(?m-i)", ""))


@given(st.text('startab:|()[]?*+~.,!{}%#/"\\->\n 12', max_size=60))
def test_any_text_is_a_grammar_or_refused(definition: str) -> None:
    for text in (definition, f"start: {definition}"):
        with suppress(TextGrammarError):
            assert text_grammar_of(lark(text)).atoms is not None
