"""The grammars of answers, tried with llguidance over a vocabulary of bytes and each dialect's own marks."""

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
    """A vocabulary of single bytes, a stop token and some marks, as llguidance takes one."""

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


def matcher(dialect: Dialect, wanted: CallLimits, has_tokens: bool) -> LLMatcher:
    lark = answer_grammar(dialect, wanted, controls_of(has_tokens))
    started = LLMatcher(vocabulary(has_tokens), lark)
    assert not started.is_error(), started.get_error()
    return started


def takes(dialect: Dialect, wanted: CallLimits, text: str, *, has_tokens: bool = False) -> bool:
    """Whether `text` is a whole answer."""
    at = matcher(dialect, wanted, has_tokens)
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
def test_text_alone_and_calls_alone_are_answers(name: str, has_tokens: bool) -> None:
    dialect = DIALECTS[name]
    wanted = CallLimits(SPECS)
    assert takes(dialect, wanted, in_final(dialect, "Hello.\n\n{'a': 1}"), has_tokens=has_tokens)
    assert takes(dialect, wanted, written(dialect, CODE), has_tokens=has_tokens)
    assert takes(dialect, wanted, written(dialect, NOW), has_tokens=has_tokens)
    if not is_one_call(dialect):
        text = f"First.\n{written(dialect, PARIS, ROME)}"
        assert takes(dialect, wanted, text, has_tokens=has_tokens)


@any_dialect
@both
def test_a_call_that_must_be_is_begun_at_once_and_is_of_a_tool_at_hand(
    name: str, has_tokens: bool
) -> None:
    dialect = DIALECTS[name]
    wanted = CallLimits(SPECS[:1], min_calls=1, max_calls=1)
    assert takes(dialect, wanted, written(dialect, PARIS), has_tokens=has_tokens)
    assert not takes(dialect, wanted, written(dialect, NOW), has_tokens=has_tokens)
    for text in ("Hello", in_final(dialect, "Hello"), "", f"x{written(dialect, PARIS)}"):
        assert not takes(dialect, wanted, text, has_tokens=has_tokens)


@any_dialect
@both
def test_behind_the_one_call_that_is_wanted_the_answer_is_over(name: str, has_tokens: bool) -> None:
    dialect = DIALECTS[name]
    for least in (0, 1):
        at = matcher(dialect, CallLimits(SPECS, min_calls=least, max_calls=1), has_tokens)
        tokens = tokens_of(written(dialect, PARIS), has_tokens)
        assert at.try_consume_tokens(tokens) == len(tokens)
        allowed = at.compute_logit_bias()
        assert [token for token, bias in enumerate(allowed) if bias] in ([END], [])


@any_dialect
@both
def test_several_calls_are_one_answer_where_the_family_has_that(
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
def test_no_call_is_begun_where_none_is_wanted(name: str, has_tokens: bool) -> None:
    dialect = DIALECTS[name]
    wanted = CallLimits(SPECS, max_calls=0)
    assert takes(dialect, wanted, in_final(dialect, "Hello."), has_tokens=has_tokens)
    if dialect.calls.opening:
        assert not takes(dialect, wanted, written(dialect, PARIS), has_tokens=has_tokens)


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
def test_what_a_tool_does_not_take_is_no_call(
    name: str, has_tokens: bool, call: tuple[str, dict[str, Any]]
) -> None:
    dialect = DIALECTS[name]
    text = written(dialect, call)
    assert not takes(dialect, CallLimits(SPECS, min_calls=1), text, has_tokens=has_tokens)


@both
def test_the_json_of_an_answer_obeys_its_schema(has_tokens: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for dialect in DIALECTS.values():
        for wanted in (CallLimits(schema=schema), CallLimits(SPECS, schema=schema)):
            assert takes(dialect, wanted, in_final(dialect, '{"a": 1}'), has_tokens=has_tokens)
            assert not takes(dialect, wanted, in_final(dialect, "{}"), has_tokens=has_tokens)
            assert not takes(dialect, wanted, in_final(dialect, "1, 2"), has_tokens=has_tokens)
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
def test_a_thought_comes_first(has_tokens: bool) -> None:
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
    "wanted",
    [CallLimits(), CallLimits(SPECS), CallLimits(SPECS, max_calls=1)],
    ids=["no tools", "tools", "one call"],
)
def test_a_text_holds_no_mark_that_would_be_read(
    name: str, has_tokens: bool, wanted: CallLimits
) -> None:
    form = DIALECTS[name].thinking or ThinkingForm()
    dialect = replace(DIALECTS[name], thinking=form)
    thinking = replace(wanted, thought="possible")
    for mark in (form.opening, *dialect.silent):
        text = in_final(dialect, f"a {mark} b")
        assert not takes(dialect, thinking, text, has_tokens=has_tokens)
        if mark not in dialect.silent and not has_tokens:
            assert takes(dialect, wanted, text, has_tokens=has_tokens)
    assert takes(dialect, thinking, in_final(dialect, "a b"), has_tokens=has_tokens)


@pytest.mark.parametrize("blanks", ["\n", " ", " \n"])
def test_a_thought_may_begin_on_a_line_of_its_own(blanks: str) -> None:
    possible = CallLimits(SPECS, thought="possible", thinking_tokens=50)
    for text in ("Hi.", written(thinker(), PARIS)):
        thought = f"{blanks}<think>hm</think>\n\n{text}"
        assert takes(thinker(), possible, thought, has_tokens=True)
        assert takes(thinker(), possible, blanks + text, has_tokens=True)


def test_a_thought_is_closed_when_its_budget_is_used_up() -> None:
    at = matcher(thinker(), CallLimits(thought="begun", thinking_tokens=5), has_tokens=True)
    assert at.try_consume_tokens(list(b"abcde")) == 5
    allowed = [token for token, bias in enumerate(at.compute_logit_bias()) if bias]
    assert allowed == [controls_of(True)["</think>"]]


@both
def test_an_answer_in_channels_is_text_or_one_call(has_tokens: bool) -> None:
    dialect = DIALECTS["harmony"]
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    wanted = CallLimits(SPECS, thought="possible")
    for answer in (in_final(dialect, "Hi."), written(dialect, PARIS)):
        assert takes(dialect, wanted, thought + answer, has_tokens=has_tokens)
        assert takes(dialect, wanted, answer, has_tokens=has_tokens)
    assert not takes(dialect, wanted, thought + "Hi.", has_tokens=has_tokens)


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
def test_a_call_alone_is_an_answer_and_so_is_other_json(text: str) -> None:
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
def test_what_would_be_read_as_a_call_is_one(text: str) -> None:
    assert not takes(DIALECTS["plain"], CallLimits(SPECS), text)


def test_a_line_of_a_grammar_tells_its_tool() -> None:
    for name, dialect in DIALECTS.items():
        lark = answer_grammar(dialect, CallLimits(SPECS), {})
        lines = lark.splitlines()
        for line, text in enumerate(lines, start=1):
            at = tool_in_line(lark, line)
            named = [number for number in range(3) if f"tool{number}" in text.partition(":")[0]]
            assert named == ([] if at is None else [at]), (name, text)
    assert tool_in_line("start: x", 9) is None


def walk(
    dialect: Dialect, wanted: CallLimits, has_tokens: bool, draw: Any, begun: str = ""
) -> str | None:
    """An answer that the grammar lets through, by chance, after `begun`. None where it takes too long.

    After some tokens it ends whatever can be ended: by chance a free text would not find its mark.
    """
    at = matcher(dialect, wanted, has_tokens)
    spelled = Bytes(MARKS if has_tokens else ()).tokens
    form = dialect.calls.parameters
    end = tokens_of(form.quote or form.after_value, has_tokens) if form else []
    said = tokens_of(begun, has_tokens)
    assert at.try_consume_tokens(said) == len(said)
    while len(said) < 1200 and not at.is_stopped():
        is_late = len(said) > 40
        allowed = [token for token, bias in enumerate(at.compute_logit_bias()) if bias]
        if is_late and END in allowed:
            break
        if is_late and end and at.validate_tokens(end) == len(end):
            said += end
            assert at.try_consume_tokens(end) == len(end)
            continue
        short = [token for token in allowed if token >= END or chr(token) in '"},]\n</>)|']
        token = draw(st.sampled_from(short if is_late and short else allowed))
        if token == END:
            break
        said.append(token)
        assert at.consume_token(token)
    else:
        if not at.is_stopped():
            return None
    return b"".join(spelled[one] for one in said).decode(errors="replace")


@any_dialect
@both
@given(data=st.data())
@settings(max_examples=15)
def test_whatever_a_forced_grammar_lets_through_is_read_as_calls_that_obey_their_schemas(
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
def test_whatever_a_grammar_lets_through_behind_a_mark_is_a_call_that_obeys_its_schema(
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


def test_a_text_ends_at_its_first_mark_for_the_grammar_as_for_the_reader() -> None:
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
def test_what_stands_after_the_mark_of_a_text_is_not_a_part_of_it(name: str) -> None:
    form = DIALECTS[name].calls.parameters
    assert form is not None
    mark = form.after_value.strip()
    for content in (f"x{mark}y", f"x\n{mark}y", f"x{mark} \n"):
        call = written(DIALECTS[name], ("write", {"path": "a", "content": "CONTENT"}))
        assert takes(DIALECTS[name], CallLimits(SPECS, min_calls=1), call)
        raw = call.replace("CONTENT", content)
        assert not takes(DIALECTS[name], CallLimits(SPECS, min_calls=1), raw)


def test_a_tool_set_as_large_as_an_agents_is_written_quickly_and_compiles() -> None:
    specs = [ToolSpec(f"tool_{at}", "", SPECS[at % 3].schema) for at in range(64)]
    lark = answer_grammar(DIALECTS["plain"], CallLimits(specs), {})
    assert len(lark) < 100_000
    assert json.dumps("tool_63")[1:-1] in lark
    matcher(DIALECTS["plain"], CallLimits(specs), has_tokens=False)
