"""Tests grammars and matchers over a small vocabulary, without a model.

Whatever is sampled among the allowed tokens must match the grammar.
"""

import json
import re
from collections.abc import Mapping

import jsonschema
import pytest
from llguidance import LLParserLimits

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar.compiled import CompiledGrammar, Matcher
from pensieve.errors import GrammarError
from tests.engine import grammar_cases as cases
from tests.engine.walking import (
    CALL,
    END,
    PROMPT,
    allowed,
    compiled,
    generation,
    ids,
    matcher,
    tokenizer,
    vocabulary,
    walk,
)

ANSWERS_PER_SET = 20


def check_call(text: str, tools: Mapping[str, cases.Schema]) -> None:
    call = json.loads(text)
    assert call.keys() == {"name", "arguments"}
    jsonschema.validate(call["arguments"], tools[call["name"]])


@pytest.mark.parametrize("name", cases.TOOL_SETS)
def test_every_forced_call_validates(name: str) -> None:
    tools = cases.TOOL_SETS[name]
    grammar = compiled(cases.forced(tools))
    for seed in range(ANSWERS_PER_SET):
        answer = walk(Matcher(grammar, generation("")), seed)
        assert answer.has_ended
        check_call(answer.text, tools)


@pytest.mark.parametrize(
    ("repeat", "counts"), [("*", range(99)), ("?", range(2)), ("+", range(1, 99))]
)
def test_calls_in_free_text_occur_as_often_as_allowed(repeat: str, counts: range) -> None:
    tools = cases.TOOL_SETS["files"]
    # Little text, so that random answers end.
    grammar = compiled(cases.in_text(tools, repeat, free="/[a-z <]{0,20}/"))
    seen: set[int] = set()
    for seed in range(40):
        answer = walk(Matcher(grammar, generation("")), seed, max_tokens=2000)
        calls = re.findall("<call>(.*?)</call>", answer.text, re.DOTALL)
        for call in calls:
            check_call(call, tools)
        if answer.has_ended:
            seen.add(len(calls))
    assert seen <= set(counts)
    assert min(counts) in seen


def test_stop_token_is_allowed_exactly_where_the_grammar_may_end() -> None:
    answer = matcher('start: "ab" "cd"?')
    ends = [END in allowed(answer)]
    for token in ids("a") + ids("b") + ids("c") + ids("d"):
        answer.advance(token)
        ends.append(END in allowed(answer))
    assert ends == [False, False, True, False, True]


def test_only_stop_tokens_are_allowed_after_the_grammars_end() -> None:
    other = tokenizer().token_to_id("<|endoftext|>")
    for stops in ({END}, {other}, {END, other}):
        answer = matcher('start: "a"', stop_tokens=frozenset(stops))
        answer.advance(ids("a")[0])
        assert allowed(answer) == stops


def test_stop_token_spelled_like_text_is_not_allowed_inside_a_string() -> None:
    """Phi-3's </s> is such a token: a JSON string may contain its text."""
    plain = ids("x")[0]
    answer = matcher('start: "\\"" /x*/ "\\""', stop_tokens=frozenset({plain, END}))
    answer.advance(ids('"')[0])
    assert plain not in allowed(answer)
    answer.advance(ids('"')[0])
    assert allowed(answer) == {plain, END}


def test_stop_token_named_by_the_grammar_is_allowed() -> None:
    answer = matcher(f'start: "a" <[{END}]> | "b"')
    answer.advance(ids("a")[0])
    assert allowed(answer) == {END}


def test_special_token_is_allowed_only_where_the_grammar_names_it() -> None:
    text = matcher("start: /(.|\\n)*/")
    assert CALL not in allowed(text)
    named = matcher(f'start: /(.|\\n)*/ <[{CALL}]> "x"')
    assert CALL in allowed(named)
    named.advance(CALL)
    assert allowed(named) == set(ids("x"))


def test_resumed_answer_continues_at_its_position_in_the_grammar() -> None:
    lark = cases.forced(cases.TOOL_SETS["files"])
    whole = walk(matcher(lark), seed=3)
    for cut in range(0, len(whole.tokens), 7):
        first = matcher(lark)
        for token in whole.tokens[:cut]:
            first.advance(token)
        resumed = matcher(lark, answered=whole.tokens[:cut])
        assert allowed(resumed) == allowed(first)


def test_resuming_an_answer_that_violates_the_grammar_raises() -> None:
    with pytest.raises(GrammarError):
        matcher('start: "ab"', answered=ids("b"))


def test_strings_allow_any_text() -> None:
    text = 'She said: "naïve"\\ \n\t😀 </call> <|im_end|> \u2028 ' + "東京" * 50
    lark = f"start: a\na: {cases.json_of({'type': 'string'})}\n"
    written = json.dumps(text, ensure_ascii=False)
    answer = matcher(lark)
    # Character by character: as one piece, <|im_end|> would be a control token.
    for token in [token for character in written for token in ids(character)]:
        assert token in allowed(answer)
        answer.advance(token)
    assert allowed(answer) == {END}


def test_lexer_used_up_by_other_answers_is_reset() -> None:
    few = LLParserLimits(max_lexer_states=1000, verbose_errors=False)
    remembering = Grammar(cases.HOSTILE["pattern: remembers 1000"])
    grammar = CompiledGrammar(vocabulary(), remembering, few)
    answers = [walk(Matcher(grammar, generation("")), seed, max_tokens=40) for seed in range(12)]
    assert [len(answer.tokens) for answer in answers] == [40] * 12


CALL_OF_ONE_TOOL = 'start: "{\\"name\\": \\"Read\\", \\"path\\": \\"" /[a-c]{1,4}/ "\\"}"'


def test_forced_tokens_are_the_only_ones_allowed_one_after_the_other() -> None:
    answer, other = matcher(CALL_OF_ONE_TOOL), matcher(CALL_OF_ONE_TOOL)
    forced = answer.forced()
    assert len(forced) > 3
    assert answer.forced() == forced
    for token in forced:
        assert token in allowed(other)
        other.advance(token)
    assert other.forced() == []


def test_masks_of_drafts_equal_those_of_advancing_and_leave_the_position() -> None:
    answer, other = matcher(CALL_OF_ONE_TOOL), matcher(CALL_OF_ONE_TOOL)
    drafts = answer.forced()
    masks = answer.masks(drafts)
    assert len(masks) == len(drafts) + 1
    for mask, token in zip(masks, [*drafts, None], strict=True):
        assert mask == other.allowed()
        if token is not None:
            other.advance(token)
    assert answer.masks([]) == [masks[0]]
    assert answer.forced() == drafts


def test_drafts_are_valid_until_the_grammar_or_a_stop_token_ends_them() -> None:
    answer = matcher(CALL_OF_ONE_TOOL)
    drafts = [*answer.forced(), *ids("ab"), *ids("z"), *ids("a")]
    assert answer.valid(drafts) == len(drafts) - 2
    assert answer.valid([END]) == 0
    assert answer.valid([10**6]) == 0
    assert matcher('start: "a"').valid([*ids("a"), END]) == 1


def test_lexer_used_up_within_drafts_gives_fewer_masks_and_goes_on_from_the_answer() -> None:
    few = LLParserLimits(max_lexer_states=1000, verbose_errors=False)
    remembering = Grammar(cases.HOSTILE["pattern: remembers 1000"])
    grammar = CompiledGrammar(vocabulary(), remembering, few)
    written = walk(Matcher(grammar, generation("")), 1, max_tokens=200).tokens
    answers = [Matcher(grammar, generation("")) for _ in range(12)]
    counts: list[int] = []
    for answer in answers:
        for at in range(0, 160, 8):
            drafts = written[at : at + 8]
            counts.append(len(answer.masks(drafts[: answer.valid(drafts)])))
            for token in drafts:
                assert answer.allowed()[token]
                answer.advance(token)
    assert max(counts) == 9
    assert min(counts) < 9


def test_large_grammar_is_not_compiled_again_in_the_batch() -> None:
    few = LLParserLimits(max_lexer_states=1000, verbose_errors=False)
    keys: dict[str, cases.Schema] = {"first": {"type": "string", "pattern": "^.*a.{1000}$"}}
    keys |= {f"key_{n}": cases.COUNT for n in range(3000)}
    large = Grammar(f"start: a\na: {cases.json_of(cases.closed(list(keys), **keys))}\n")
    grammar = CompiledGrammar(vocabulary(), large, few)
    with pytest.raises(GrammarError, match="too large"):
        walk(Matcher(grammar, generation("")), seed=1, max_tokens=1000)
    assert grammar.is_spent


def test_generation_with_a_grammar_needs_an_existing_stop_token() -> None:
    with pytest.raises(ValueError, match="stop token"):
        Generation(PROMPT, 5, grammar=Grammar("start: /a/"))
    with pytest.raises(GrammarError, match="stop tokens"):
        matcher("start: /a/", stop_tokens=frozenset({10**6}))


@pytest.mark.parametrize("answered", [-1, 3])
def test_answered_tokens_outside_the_prompt_are_refused(answered: int) -> None:
    with pytest.raises(ValueError, match="answered"):
        Generation(PROMPT, 5, answered_tokens=answered)


@pytest.mark.parametrize("lark", ["start: nothing", "", "start: start"])
def test_compile_error_is_a_single_line(lark: str) -> None:
    with pytest.raises(GrammarError) as raised:
        compiled(lark)
    assert raised.value.message
    assert "\n" not in raised.value.message
