"""Grammars of answers, tested with llguidance on byte tokens and each dialect's marks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import Dialect, ThinkingForm, ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls
from pensieve.dialects.grammar.answer_grammar import CallLimits, answer_grammar, tool_in_line
from pensieve.dialects.grammar.schema_simplifier import compilable_object
from tests.dialects.cases import CODE, DIALECTS, NOW, PARIS, ROME, TOOLS
from tests.reply.test_answer_parser import filled, meaning, read

any_dialect = pytest.mark.parametrize("name", DIALECTS)
both = pytest.mark.parametrize("has_tokens", [True, False], ids=["tokens", "text"])
SPECS = [ToolSpec(name, "", compilable_object(TOOLS[name]).schema) for name in TOOLS]
MARKS = (
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    *("<|tool_call>", "<tool_call|>", '<|"|>', "<escape>", "<start_function_call>"),
    *("<|tool_call_start|>", "<|tool_call_end|>", "<|tool_calls_section_begin|>", "<arg_key>"),
    *("<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
    *("<|channel|>", "<|message|>", "<|constrain|>", "<|start|>", "<|end|>", "<|call|>"),
    *("</arg_key>", "<arg_value>", "</arg_value>", "<minimax:tool_call>", "</minimax:tool_call>"),
)
END = 256


class Bytes:
    """Return a vocabulary of single bytes, a stop token and some marks, for llguidance."""

    bos_token_id = None
    eos_token_id = END
    is_tokenizer_wrapper = True

    def __init__(self, marks: Sequence[str]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)]
        self.tokens += [b"<end>", *(mark.encode() for mark in marks)]
        self.special_token_ids = list(range(END, len(self.tokens)))

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def vocabulary(has_tokens: bool) -> LLTokenizer:
    return LLTokenizer(Bytes(MARKS if has_tokens else ()), slices=[])


def controls_of(has_tokens: bool) -> Mapping[str, int]:
    return {mark: END + 1 + at for at, mark in enumerate(MARKS)} if has_tokens else {}


def tokens_of(text: str, has_tokens: bool) -> list[int]:
    controls = controls_of(has_tokens)
    found: list[int] = []
    at = 0
    while at < len(text):
        mark = max((m for m in controls if text.startswith(m, at)), key=len, default="")
        found += [controls[mark]] if mark else text[at].encode()
        at += len(mark) or 1
    return found


def matcher(dialect: Dialect, limits: CallLimits, has_tokens: bool) -> LLMatcher:
    lark = answer_grammar(dialect, limits, controls_of(has_tokens))
    started = LLMatcher(vocabulary(has_tokens), lark)
    assert not started.is_error(), started.get_error()
    return started


def takes(dialect: Dialect, limits: CallLimits, text: str, *, has_tokens: bool = False) -> bool:
    """Return whether `text` is a complete answer."""
    at = matcher(dialect, limits, has_tokens)
    tokens = tokens_of(text, has_tokens)
    return at.try_consume_tokens(tokens) == len(tokens) and at.is_accepting()


def written(dialect: Dialect, *calls: tuple[str, dict[str, Any]]) -> str:
    return filled(format_calls(dialect.calls, [ToolCall(*call) for call in calls]))


def in_final(dialect: Dialect, text: str) -> str:
    return dialect.text_opening + text


def is_one_call(dialect: Dialect) -> bool:
    return bool(dialect.text_opening) or not dialect.calls.opening


@any_dialect
@both
def test_grammar_admits_text_alone_and_calls_alone(name: str, has_tokens: bool) -> None:
    dialect = DIALECTS[name]
    limits = CallLimits(SPECS)
    assert takes(dialect, limits, in_final(dialect, "Hello.\n\n{'a': 1}"), has_tokens=has_tokens)
    assert takes(dialect, limits, written(dialect, CODE), has_tokens=has_tokens)
    assert takes(dialect, limits, written(dialect, NOW), has_tokens=has_tokens)
    if not is_one_call(dialect):
        text = f"First.\n{written(dialect, PARIS, ROME)}"
        assert takes(dialect, limits, text, has_tokens=has_tokens)


@any_dialect
@both
def test_required_call_starts_at_once_and_names_a_callable_tool(
    name: str, has_tokens: bool
) -> None:
    dialect = DIALECTS[name]
    limits = CallLimits(SPECS[:1], min_calls=1, max_calls=1)
    assert takes(dialect, limits, written(dialect, PARIS), has_tokens=has_tokens)
    assert not takes(dialect, limits, written(dialect, NOW), has_tokens=has_tokens)
    for text in ("Hello", in_final(dialect, "Hello"), "", f"x{written(dialect, PARIS)}"):
        assert not takes(dialect, limits, text, has_tokens=has_tokens)


@any_dialect
@both
def test_answer_ends_after_the_only_allowed_call(name: str, has_tokens: bool) -> None:
    dialect = DIALECTS[name]
    for min_calls in (0, 1):
        at = matcher(dialect, CallLimits(SPECS, min_calls=min_calls, max_calls=1), has_tokens)
        tokens = tokens_of(written(dialect, PARIS), has_tokens)
        assert at.try_consume_tokens(tokens) == len(tokens)
        allowed = at.compute_logit_bias()
        assert [token for token, bias in enumerate(allowed) if bias] in ([END], [])


@any_dialect
@both
def test_several_calls_are_admitted_if_the_family_supports_them(
    name: str, has_tokens: bool
) -> None:
    dialect = DIALECTS[name]
    several = written(dialect, PARIS, NOW, ROME)
    is_able = not is_one_call(dialect)
    assert takes(dialect, CallLimits(SPECS, min_calls=1), several, has_tokens=has_tokens) == is_able
    assert not takes(
        dialect, CallLimits(SPECS, min_calls=1, max_calls=1), several, has_tokens=has_tokens
    )


@any_dialect
@both
def test_no_call_is_admitted_with_max_calls_zero(name: str, has_tokens: bool) -> None:
    dialect = DIALECTS[name]
    limits = CallLimits(SPECS, max_calls=0)
    assert takes(dialect, limits, in_final(dialect, "Hello."), has_tokens=has_tokens)
    if dialect.calls.opening:
        assert not takes(dialect, limits, written(dialect, PARIS), has_tokens=has_tokens)


@any_dialect
@both
@pytest.mark.parametrize(
    "call",
    [
        ("get_weather", {}),
        ("get_weather", {"city": "Rome", "unit": "kelvin"}),
        ("get_weather", {"city": "Rome", "planet": "Mars"}),
        ("write", {"path": "a", "content": "b", "mode": "x"}),
        ("write", {"path": "a", "content": "b", "tags": [1]}),
        ("unknown", {}),
    ],
    ids=str,
)
def test_call_with_arguments_outside_the_schema_is_rejected(
    name: str, has_tokens: bool, call: tuple[str, dict[str, Any]]
) -> None:
    dialect = DIALECTS[name]
    text = written(dialect, call)
    assert not takes(dialect, CallLimits(SPECS, min_calls=1), text, has_tokens=has_tokens)


@both
def test_json_answer_obeys_its_schema(has_tokens: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for dialect in DIALECTS.values():
        for limits in (CallLimits(schema=schema), CallLimits(SPECS, schema=schema)):
            assert takes(dialect, limits, in_final(dialect, '{"a": 1}'), has_tokens=has_tokens)
            assert not takes(dialect, limits, in_final(dialect, "{}"), has_tokens=has_tokens)
            assert not takes(dialect, limits, in_final(dialect, "1, 2"), has_tokens=has_tokens)
        assert takes(
            dialect,
            CallLimits(SPECS, schema=schema),
            written(dialect, PARIS),
            has_tokens=has_tokens,
        )


def thinker(**fields: Any) -> Dialect:
    hermes = DIALECTS["hermes"]
    return Dialect("thinker", hermes.calls, thinking=ThinkingForm(), **fields)


@both
def test_thought_precedes_the_answer(has_tokens: bool) -> None:
    call = written(thinker(), PARIS)
    begun, possible = CallLimits(SPECS, thought="begun"), CallLimits(SPECS, thought="possible")
    for text in ("Hi.", call, f"Hi.\n{call}"):
        assert takes(thinker(), begun, f"hm</think>\n\n{text}", has_tokens=has_tokens)
        assert takes(thinker(), possible, f"<think>hm</think>\n\n{text}", has_tokens=has_tokens)
        assert takes(thinker(), possible, text, has_tokens=has_tokens)
        assert not takes(thinker(), begun, text, has_tokens=has_tokens)
    forced = CallLimits(SPECS, min_calls=1, thought="begun")
    assert takes(thinker(), forced, f"hm</think>\n\n{call}", has_tokens=has_tokens)
    assert not takes(thinker(), forced, "hm</think>\n\nHi.", has_tokens=has_tokens)


@any_dialect
@both
@pytest.mark.parametrize(
    "limits",
    [CallLimits(), CallLimits(SPECS), CallLimits(SPECS, max_calls=1)],
    ids=["no tools", "tools", "one call"],
)
def test_text_contains_no_mark_that_would_be_parsed(
    name: str, has_tokens: bool, limits: CallLimits
) -> None:
    form = DIALECTS[name].thinking or ThinkingForm()
    dialect = replace(DIALECTS[name], thinking=form)
    thinking = replace(limits, thought="possible")
    for mark in (form.opening, *dialect.silent):
        text = in_final(dialect, f"a {mark} b")
        assert not takes(dialect, thinking, text, has_tokens=has_tokens)
        if mark not in dialect.silent and not has_tokens:
            assert takes(dialect, limits, text, has_tokens=has_tokens)
    assert takes(dialect, thinking, in_final(dialect, "a b"), has_tokens=has_tokens)


@pytest.mark.parametrize("blanks", ["\n", " ", " \n"])
def test_thought_may_begin_after_blank_characters(blanks: str) -> None:
    possible = CallLimits(SPECS, thought="possible", thinking_tokens=50)
    for text in ("Hi.", written(thinker(), PARIS)):
        thought = f"{blanks}<think>hm</think>\n\n{text}"
        assert takes(thinker(), possible, thought, has_tokens=True)
        assert takes(thinker(), possible, blanks + text, has_tokens=True)


def test_thought_is_closed_when_its_budget_is_spent() -> None:
    at = matcher(thinker(), CallLimits(thought="begun", thinking_tokens=5), has_tokens=True)
    assert at.try_consume_tokens(list(b"abcde")) == 5
    allowed = [token for token, bias in enumerate(at.compute_logit_bias()) if bias]
    assert allowed == [controls_of(True)["</think>"]]


@both
def test_answer_in_channels_is_text_or_one_call(has_tokens: bool) -> None:
    dialect = DIALECTS["harmony"]
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    limits = CallLimits(SPECS, thought="possible")
    for answer in (in_final(dialect, "Hi."), written(dialect, PARIS)):
        assert takes(dialect, limits, thought + answer, has_tokens=has_tokens)
        assert takes(dialect, limits, answer, has_tokens=has_tokens)
    assert not takes(dialect, limits, thought + "Hi.", has_tokens=has_tokens)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "clock", "arguments": {}}',
        '```json\n{"name": "clock", "arguments": {}}\n```',
        '{"name": "clock", "arguments": {}}\n{"name": "get_weather", "arguments": {"city": "a"}}',
        '```json\n{"name": "clock", "arguments": {}}\n{"name": "clock", "arguments": {}}\n```',
        '{"nam": 1}',
        "```json\n[1]\n```",
        '{"a": {"name": 1}}',
    ],
)
def test_bare_call_and_other_json_are_admitted(text: str) -> None:
    assert takes(DIALECTS["plain"], CallLimits(SPECS), text)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "clock", "arguments": {}}\n{"name": "get_weather", "arguments": {}}',
        '{"name": "clock", "arguments": {}}\nx',
        '{"name": "nobody"}',
        '\n{ "name": 1',
        '```json\n{"name": "clock", "arguments": 1}\n```',
    ],
)
def test_text_that_would_be_parsed_as_a_call_must_be_a_valid_call(text: str) -> None:
    assert not takes(DIALECTS["plain"], CallLimits(SPECS), text)


def test_line_of_a_grammar_identifies_its_tool() -> None:
    for name, dialect in DIALECTS.items():
        lark = answer_grammar(dialect, CallLimits(SPECS), {})
        lines = lark.splitlines()
        for line, text in enumerate(lines, start=1):
            at = tool_in_line(lark, line)
            named = [number for number in range(3) if f"tool{number}" in text.partition(":")[0]]
            assert named == ([] if at is None else [at]), (name, text)
    assert tool_in_line("start: x", 9) is None


def walk(
    dialect: Dialect, limits: CallLimits, has_tokens: bool, draw: Any, begun: str = ""
) -> str | None:
    """Return a random answer of the grammar after `begun`; None if it takes too long.

    After some tokens it ends what can be ended: random text would rarely contain the mark.
    """
    at = matcher(dialect, limits, has_tokens)
    spelled = Bytes(MARKS if has_tokens else ()).tokens
    form = dialect.calls.parameters
    end = tokens_of(form.quote or form.after_value, has_tokens) if form else []
    generated = tokens_of(begun, has_tokens)
    assert at.try_consume_tokens(generated) == len(generated)
    while len(generated) < 1200 and not at.is_stopped():
        is_late = len(generated) > 40
        allowed = [token for token, bias in enumerate(at.compute_logit_bias()) if bias]
        if is_late and END in allowed:
            break
        if is_late and end and at.validate_tokens(end) == len(end):
            generated += end
            assert at.try_consume_tokens(end) == len(end)
            continue
        short = [token for token in allowed if token >= END or chr(token) in '"},]\n</>)|']
        token = draw(st.sampled_from(short if is_late and short else allowed))
        if token == END:
            break
        generated.append(token)
        assert at.consume_token(token)
    else:
        if not at.is_stopped():
            return None
    return b"".join(spelled[one] for one in generated).decode(errors="replace")


@any_dialect
@both
@given(data=st.data())
@settings(max_examples=15)
def test_random_answers_of_a_forced_grammar_parse_as_calls_that_obey_their_schemas(
    name: str, has_tokens: bool, data: st.DataObject
) -> None:
    dialect = DIALECTS[name]
    answer = walk(dialect, CallLimits(SPECS, min_calls=1, max_calls=2), has_tokens, data.draw)
    assume(answer is not None and "\ufffd" not in answer)
    means = meaning(read(AnswerFormat(dialect, TOOLS), [answer]))
    assert 1 <= len(means) <= 2, answer
    for call in means:
        assert isinstance(call, tuple), (answer, means)
        jsonschema.validate(call[1], TOOLS[call[0]])


@any_dialect
@both
@given(data=st.data())
@settings(max_examples=10)
def test_random_answers_after_a_call_mark_parse_as_calls_that_obey_their_schemas(
    name: str, has_tokens: bool, data: st.DataObject
) -> None:
    dialect = DIALECTS[name]
    begun = dialect.calls.opening if dialect.text_opening else f"x {dialect.calls.opening}"
    if not dialect.calls.opening:
        begun = '{"name"'
    answer = walk(dialect, CallLimits(SPECS), has_tokens, data.draw, begun)
    assume(answer is not None and "\ufffd" not in answer)
    calls = [
        one
        for one in meaning(read(AnswerFormat(dialect, TOOLS), [answer]))
        if isinstance(one, tuple)
    ]
    assert calls, answer
    for tool, given_input in calls:
        jsonschema.validate(given_input, TOOLS[tool])


def test_text_ends_at_its_first_mark_in_grammar_and_parser() -> None:
    dialect = DIALECTS["qwen-coder"]
    call = (
        "<tool_call>\n<function=write>\n<parameter=path>\n</parameter>\n"
        "<parameter=content>\nx\n</parameter>\n</function>\n</tool_call>"
    )
    assert takes(dialect, CallLimits(SPECS, min_calls=1), call)
    assert not takes(
        dialect, CallLimits(SPECS, min_calls=1), call.replace("x\n", "x</parameter>y\n")
    )
    assert meaning(read(AnswerFormat(dialect, TOOLS), [call])) == [
        ("write", {"path": "", "content": "x"})
    ]


@pytest.mark.parametrize("name", ["qwen-coder", "minimax", "glm", "glm-4.7"])
def test_text_does_not_include_what_follows_its_mark(name: str) -> None:
    form = DIALECTS[name].calls.parameters
    assert form is not None
    mark = form.after_value.strip()
    for content in (f"x{mark}y", f"x\n{mark}y", f"x{mark} \n"):
        call = written(DIALECTS[name], ("write", {"path": "a", "content": "CONTENT"}))
        assert takes(DIALECTS[name], CallLimits(SPECS, min_calls=1), call)
        raw = call.replace("CONTENT", content)
        assert not takes(DIALECTS[name], CallLimits(SPECS, min_calls=1), raw)


def test_grammar_of_an_agents_tool_set_is_built_quickly_and_compiles() -> None:
    specs = [ToolSpec(f"tool_{at}", "", SPECS[at % 3].schema) for at in range(64)]
    lark = answer_grammar(DIALECTS["plain"], CallLimits(specs), {})
    assert len(lark) < 100_000
    assert json.dumps("tool_63")[1:-1] in lark
    matcher(DIALECTS["plain"], CallLimits(specs), has_tokens=False)
