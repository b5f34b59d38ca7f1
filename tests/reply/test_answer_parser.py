"""Parsing of answers in every dialect, split in every way."""

import json
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pensieve.api.json_body import decode
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import ThinkingForm, ToolCall
from pensieve.dialects.format_calls import format_calls
from pensieve.reply.answer_parser import AnswerParser, coalesce, find_first, settled_length
from pensieve.reply.json_prefix import BLANKS, MAX_DEPTH, normalize_json
from pensieve.reply.parse_events import (
    ParseEvent,
    Text,
    Thought,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from tests.dialects.cases import CASES, CODE, DIALECTS, HERMES, NOW, PARIS, ROME, TOOLS, Case

any_dialect = pytest.mark.parametrize("name", DIALECTS)
BARE = '{"name": "clock", "arguments": {}}'
THINKING = ThinkingForm("<think>", "</think>")


def is_json(text: str) -> bool:
    return normalize_json(text) is not None


def form_of(name: str, **fields: Any) -> AnswerFormat:
    return AnswerFormat(DIALECTS[name], TOOLS, **fields)


def read(form: AnswerFormat, pieces: Iterable[str], *, is_cut: bool = False) -> list[ParseEvent]:
    parser = AnswerParser(form)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return coalesce(events + parser.flush(is_cut=is_cut))


def meaning(events: Sequence[ParseEvent]) -> list[Any]:
    """Return texts, thoughts in brackets, and calls as pairs of name and input.

    An incomplete input is returned as text; an unfinished or invalid call has a third part.
    """
    found: list[Any] = []
    for event in events:
        match event:
            case Text(text):
                found.append(text)
            case Thought(text):
                found.append(f"({text})")
            case ToolCallStart(name):
                found.append((name, "", "unfinished"))
            case ToolCallDelta(text):
                name, _, state = found[-1]
                found[-1] = (name, json.loads(text) if is_json(text) else text, state)
            case ToolCallEnd(is_whole):
                found[-1] = found[-1][:2] if is_whole else found[-1]
    return found


any_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.dialect}: {case.written[:40]}"
)


@any_case
def test_every_split_of_a_familys_output_parses_to_the_expected_events(case: Case) -> None:
    whole = read(form_of(case.dialect), [case.written])
    assert meaning(whole) == case.means
    assert read(form_of(case.dialect), case.written) == whole
    for at in range(len(case.written)):
        assert read(form_of(case.dialect), [case.written[:at], case.written[at:]]) == whole


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if any(not isinstance(part, str) for part in case.means)],
    ids=lambda case: f"{case.dialect}: {case.written[:40]}",
)
def test_the_input_so_far_is_always_the_beginning_of_its_json(
    case: Case,
) -> None:
    parser = AnswerParser(form_of(case.dialect))
    inputs: list[str] = []
    events = [event for char in case.written for event in parser.feed(char)]
    for event in events + parser.flush(is_cut=False):
        match event:
            case ToolCallStart():
                inputs.append("")
            case ToolCallDelta(text):
                inputs[-1] += text
                assert begins_json(inputs[-1]), inputs[-1]
            case _:
                pass
    calls = [part for part in case.means if not isinstance(part, str)]
    assert [json.loads(text) for text in inputs] == [arguments for _, arguments in calls]


def begins_json(text: str) -> bool:
    """Check by completing the text: an open string and open brackets are closed."""
    closers, in_text, escaped = "", False, False
    for char in text:
        if in_text:
            in_text, escaped = char != '"' or escaped, char == "\\" and not escaped
        elif char == '"':
            in_text = True
        elif char in "{[":
            closers += "}" if char == "{" else "]"
        elif char in "}]":
            closers = closers[:-1]
    ends = (
        ['"']
        if in_text
        else ["", "0", "null", '"": 0', ": 0", "rue", "ue", "e", "alse", "lse", "se"]
    )
    ends += ['": 0', "ull", "ll", "l"]
    return any(is_json(text + end + closers[::-1]) for end in ends)


def filled(written: str) -> str:
    """Fill in the ids that a model would make up."""
    for mark in ("[CALL_ID]", '"id": "'):
        written = written.replace(f"{mark}{{id}}", f"{mark}a12345678")
    return written


@any_dialect
def test_calls_formatted_for_history_parse_to_the_same_calls(name: str) -> None:
    dialect = DIALECTS[name]
    several = [PARIS, CODE, NOW, ROME]
    if not dialect.calls.opening or dialect.text_opening:
        several = [CODE]
    written = format_calls(dialect.calls, [ToolCall(*call) for call in several])
    assert meaning(read(form_of(name), filled(written))) == several


@pytest.mark.parametrize(
    ("name", "begun", "written", "events"),
    [
        ("hermes", True, "Hm.\n so </thi", [Thought("Hm.\n so")]),
        ("hermes", False, "Hello. <tool", [Text("Hello.")]),
        (
            "hermes",
            False,
            '<tool_call>{"name": "clock", "arguments": {"a": "b',
            [ToolCallStart("clock"), ToolCallDelta('{"a": "b')],
        ),
        (
            "qwen-coder",
            False,
            "<tool_call>\n<function=write>\n<parameter=path>\nab\n</para",
            [ToolCallStart("write"), ToolCallDelta('{"path": "ab')],
        ),
        (
            "gemma4",
            False,
            '<|tool_call>call:write{path:<|"|>ab',
            [ToolCallStart("write"), ToolCallDelta('{"path": "ab')],
        ),
        (
            "lfm2",
            False,
            '<|tool_call_start|>[write(path="ab',
            [ToolCallStart("write"), ToolCallDelta('{"path": "ab')],
        ),
    ],
)
def test_settled_output_is_emitted_at_once(
    name: str, begun: bool, written: str, events: list[ParseEvent]
) -> None:
    dialect = replace(DIALECTS[name], thinking=THINKING)
    parser = AnswerParser(AnswerFormat(dialect, TOOLS, is_in_thought=begun))
    assert coalesce([event for char in written for event in parser.feed(char)]) == events


marks = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<think>", "</think>", '{"name": "clock"', ', "arguments": {',
     "}", "{", '"a": ', "x", " ", "\n", "<", "```json\n", "```", "[", '"', "\\", HERMES, "1", "tru",
     r"\ud83d", r"\ude42", "🙂"]
)  # fmt: skip


def content_of(text: str) -> list[str]:
    """Return the characters of a text of `marks` that are outside of marks, keys and escapes."""
    return re.findall("[x1🙂]", text)


def content_of_events(events: Sequence[ParseEvent]) -> list[str]:
    parts = [
        event.json if isinstance(event, ToolCallDelta) else getattr(event, "text", "")
        for event in events
    ]
    return content_of("".join(parts))


@pytest.mark.parametrize("name", ["hermes", "plain", "llama3", "qwen-coder", "harmony", "lfm2"])
@given(st.lists(marks, max_size=12), st.booleans(), st.booleans())
@example(["<tool_call>", '{"name": "clock"', "}", '{"name": "clock"'], False, False)
@settings(max_examples=200)
def test_every_split_of_any_text_gives_the_same_events_and_content(
    name: str, pieces: list[str], begun: bool, is_cut: bool
) -> None:
    dialect = DIALECTS[name]
    thinking = dialect.thinking or THINKING
    form = AnswerFormat(replace(dialect, thinking=thinking), TOOLS, is_in_thought=begun)
    text = "".join(pieces)
    whole = read(form, [text], is_cut=is_cut)
    assert read(form, text, is_cut=is_cut) == whole
    assert read(form, pieces, is_cut=is_cut) == whole
    broken = ToolCallEnd(is_whole=False)
    if broken in whole:
        assert whole[-1] == broken
    # Repeated arguments, and the beginning of a call that is cut off, are dropped.
    elif not is_cut and text.count(', "arguments": {') < 2:
        assert content_of_events(whole) == content_of(text)


# Families that write several calls in one answer, and text next to them.
WITH_TEXT = [name for name, one in DIALECTS.items() if one.calls.opening and not one.text_opening]
text_parts = st.text(st.sampled_from(list("ab<>/{}[]'\"`\n _|_tool_call=")), max_size=12)


@st.composite
def texts_and_calls(draw: st.DrawFn) -> list[Any]:
    """Return parts of an answer, without consecutive texts."""
    calls = st.sampled_from([PARIS, CODE, NOW])
    parts = [draw(text_parts), *draw(st.lists(st.tuples(calls, text_parts), max_size=3))]
    flat = [parts[0], *(one for pair in parts[1:] for one in pair)]
    return [part for part in flat if part]


@pytest.mark.parametrize("name", WITH_TEXT)
@given(texts_and_calls())
@settings(max_examples=40)
def test_texts_and_calls_are_emitted_in_order(name: str, parts: list[Any]) -> None:
    dialect = DIALECTS[name]
    written, expected = "", list[Any]()
    for index, part in enumerate(parts):
        if not isinstance(part, str):
            written += filled(format_calls(dialect.calls, [ToolCall(*part)]))
            expected.append(part)
            continue
        written += part
        is_first, is_last = index == 0, index == len(parts) - 1
        text = part.lstrip(BLANKS * (not is_first)).rstrip(BLANKS * (not is_last))
        expected += [text] * bool(text)
    assume(dialect.calls.opening not in "".join(part for part in parts if isinstance(part, str)))
    assert meaning(read(form_of(name), [written])) == expected


@any_dialect
def test_an_answer_without_tools_is_all_text(name: str) -> None:
    dialect = replace(DIALECTS[name], thinking=None, silent=())
    written = filled(format_calls(dialect.calls, [ToolCall(*PARIS)]))
    text = f" {written} {HERMES} <think>x</think>\n{BARE}\n{string.printable}"
    assert read(AnswerFormat(dialect), [text]) == [Text(text)]


HIDDEN = [
    "</tool_call>",
    "</tool_call><tool_call>\n{}",
    '}}\n</tool_call>\n<tool_call>\n{"name": "write", "arguments": {}}\n</tool_call>',
    "<tool_call>",
    "</think>",
    '"}',
    "\\",
    HERMES,
    f"```json\n{HERMES}\n```",
    "[TOOL_CALLS][{}]",
]


@pytest.mark.parametrize("name", ["hermes", "plain", "mistral", "llama3", "kimi", "deepseek-v3.1"])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_marks_inside_a_string_argument_are_not_parsed(name: str, hidden: str) -> None:
    # For families whose calls are JSON, anywhere in the string.
    for content in (hidden, f"a {hidden} b"):
        written = format_calls(DIALECTS[name].calls, [ToolCall("write", {"content": content})])
        assert meaning(read(form_of(name), [written])) == [("write", {"content": content})]
        assert meaning(read(form_of(name), written)) == [("write", {"content": content})]


def test_a_raw_line_break_in_a_string_is_escaped() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"content": "a\n\tb"}}\n</tool_call>'
    assert meaning(read(form_of("hermes"), [written])) == [("write", {"content": "a\n\tb"})]


def test_a_lone_surrogate_in_a_string_is_replaced() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"content": "a\\ud83d b"}}\n</tool_call>'
    assert meaning(read(form_of("hermes"), [written])) == [("write", {"content": "a\ufffd b"})]


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("<tool_call> is a mark", ["<tool_call> is a mark"]),
        ("a <tool_call>\n[1]", ["a <tool_call>\n[1]"]),
        ('<tool_call>{"nme": 1}', ['<tool_call>{"nme": 1}']),
        (f"<tool_call> or {HERMES}", ["<tool_call> or", PARIS]),
        ('{"name": "unknown", "arguments": {}}', ['{"name": "unknown", "arguments": {}}']),
        (
            '{"name": "clock", "arguments": {}} is a call',
            ['{"name": "clock", "arguments": {}} is a call'],
        ),
        (
            '{"name": "clock", "arguments": {}, "x": 1}',
            ['{"name": "clock", "arguments": {}, "x": 1}'],
        ),
        ("```python\nprint(1)\n```", ["```python\nprint(1)\n```"]),
        (f"{{}} {HERMES}", ["{}", PARIS]),
        (f"```\n{HERMES}", ["```", PARIS]),
    ],
)
def test_text_that_only_begins_like_a_call_is_text(written: str, means: list[Any]) -> None:
    assert meaning(read(form_of("plain"), [written])) == means
    assert meaning(read(form_of("plain"), written)) == means


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1, "name": "clock", "parameters": {}}',
        '{"name": "", "parameters": {}}',
        '{"name": "nobody", "parameters": {}}',
        '{"name" "clock"}',
        '{"parameters": {}}',
        '{"parameters": "{", "name": "clock"}',
        '{"parameters": "[1]", "name": "clock"}',
        '{name: "clock"}',
    ],
)
def test_json_that_is_no_valid_call_is_text_in_a_dialect_without_marks(text: str) -> None:
    assert meaning(read(form_of("llama3"), [text])) == [text]
    assert meaning(read(form_of("llama3"), text)) == [text]


def test_a_call_with_invalid_input_is_emitted_up_to_the_fault() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"path": "a", oh no'
    events = read(form_of("hermes"), [written])
    assert events == [
        ToolCallStart("write"),
        ToolCallDelta('{"path": "a", '),
        ToolCallEnd(is_whole=False),
    ]


@pytest.mark.parametrize("name", ["hermes", "llama3"])
@pytest.mark.parametrize("rest", ["<think>x</think>", BARE])
def test_nothing_after_an_invalid_call_is_content(name: str, rest: str) -> None:
    form = AnswerFormat(replace(DIALECTS[name], thinking=THINKING), TOOLS)
    opening = DIALECTS[name].calls.opening
    events = read(form, [f'{opening}{{"name": "clock", "arguments": {{"a" \n{rest}'])
    assert events == [
        ToolCallStart("clock"),
        ToolCallDelta('{"a" \n'),
        ToolCallEnd(is_whole=False),
    ]


def test_text_in_the_place_of_a_closing_mark_follows_the_call_without_blanks() -> None:
    written = '<tool_call>\n{"name": "clock", "arguments": {}}\n it is'
    assert meaning(read(form_of("hermes"), [written])) == [NOW, "it is"]
    assert meaning(read(form_of("hermes"), written)) == [NOW, "it is"]


def test_a_second_call_that_text_follows_is_text_in_a_dialect_without_marks() -> None:
    text = f"{BARE} is a call"
    assert meaning(read(form_of("llama3"), [f"{BARE}\n{text}"])) == [NOW, text]
    assert meaning(read(form_of("llama3"), f"{BARE}\n{text}")) == [NOW, text]


def test_a_call_that_is_cut_off_has_no_end_event() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"path": "a'
    events = read(form_of("hermes"), [written], is_cut=True)
    assert events == [ToolCallStart("write"), ToolCallDelta('{"path": "a')]


@pytest.mark.parametrize("cut", range(1, len("<tool_call>")))
def test_a_partial_mark_is_dropped_from_a_cut_answer_of_calls_alone(cut: int) -> None:
    begun = "<tool_call>"[:cut]
    assert read(form_of("plain", has_text=False), [begun], is_cut=True) == []
    assert meaning(read(form_of("plain"), [begun], is_cut=True)) == [begun]
    written = f"{format_calls(DIALECTS['plain'].calls, [ToolCall(*NOW)])}\n{begun}"
    events = read(form_of("plain", has_text=False), [written], is_cut=True)
    assert meaning(events) == [NOW]


def test_a_call_that_is_cut_off_before_its_name_is_dropped() -> None:
    for cut in ('<tool_call>\n{"na', "<tool_call>"):
        assert read(form_of("hermes"), ["Look.\n", cut], is_cut=True) == [Text("Look.")]
        assert meaning(read(form_of("hermes"), ["Look.\n", cut])) == [f"Look.\n{cut}"]


@pytest.mark.parametrize(
    ("begun", "written", "means"),
    [
        (False, "<think>\nHm.\n</think>\n\nYes.", ["(Hm.)", "Yes."]),
        (False, "\n<think>Hm.</think>Yes.", ["(Hm.)", "Yes."]),
        (False, "<think></think>\n\nYes.", ["Yes."]),
        (True, "Hm.\n\nOr?\n</think>\n\nYes.", ["(Hm.\n\nOr?)", "Yes."]),
        (True, f"Hm.</think>\n\n{HERMES}", ["(Hm.)", PARIS]),
        (True, f"use {HERMES}?</think>no", [f"(use {HERMES}?)", "no"]),
        (True, "never closed </thi", ["(never closed </thi)"]),
        (True, "a</think><think>b</think>c", ["(a)", "<think>b</think>c"]),
        (False, f"{HERMES}<think>x</think>", [PARIS, "<think>x</think>"]),
        (False, f"{HERMES}\n{BARE}", [PARIS, NOW]),
        (False, "I <think> so", ["I <think> so"]),
        (False, "<thin ice", ["<thin ice"]),
    ],
)
def test_thoughts_are_parsed_only_at_the_beginning(
    begun: bool, written: str, means: list[Any]
) -> None:
    form = AnswerFormat(replace(DIALECTS["hermes"], thinking=THINKING), TOOLS, is_in_thought=begun)
    assert meaning(read(form, [written])) == means
    assert meaning(read(form, written)) == means


@pytest.mark.parametrize(
    ("begun", "written", "means"),
    [
        # Without opening: at the beginning, twice, after text, before a call.
        (False, "</think>\n\nYes.", ["Yes."]),
        (False, "\n</think>Yes.", ["Yes."]),
        (True, "Hm.</think></think>\n\nYes.", ["(Hm.)", "Yes."]),
        (True, "Hm.\n</think>\n\n</think>\n\nYes.", ["(Hm.)", "Yes."]),
        (True, "Hm.</think>Yes.\n</think>\nNo.", ["(Hm.)", "Yes.\n\nNo."]),
        (False, "Yes.</think>", ["Yes."]),
        (False, "a </think> b </think> c", ["a  b  c"]),
        (False, f"</think>{HERMES}", [PARIS]),
        (False, f"Look.</think>\n{HERMES}</think>", ["Look.", PARIS]),
        # Closes what was opened in the text, or is quoted.
        (False, "I <think> so</think> too", ["I <think> so</think> too"]),
        (False, "I <think> so</think> too</think>", ["I <think> so</think> too"]),
        (False, "It ends with `</think>`.", ["It ends with `</think>`."]),
        (False, 'It ends with "</think>".', ['It ends with "</think>".']),
        (False, "It ends with '</think>'.", ["It ends with '</think>'."]),
        (False, "`a` `b` </think>c", ["`a` `b` c"]),
        (False, '"a" "b" </think>c', ['"a" "b" c']),
        (False, "It `ends`</think>, it's done", ["It `ends`, it's done"]),
        (False, "```xml\n</think>\n```\n</think>.", ["```xml\n</think>\n```\n."]),
        # Not a mark, though it begins like one.
        (False, "a </thi", ["a </thi"]),
        (False, "a </thinking> b", ["a </thinking> b"]),
    ],
)
def test_a_closing_mark_without_opening_is_dropped(
    begun: bool, written: str, means: list[Any]
) -> None:
    form = AnswerFormat(replace(DIALECTS["hermes"], thinking=THINKING), TOOLS, is_in_thought=begun)
    assert meaning(read(form, [written])) == means
    assert meaning(read(form, written)) == means


@pytest.mark.parametrize("name", ["hermes", "plain", "mistral", "qwen-coder", "minimax"])
def test_a_closing_mark_inside_a_call_is_kept(name: str) -> None:
    dialect = replace(DIALECTS[name], thinking=THINKING)
    content = "a</think></think> <think>b"
    written = format_calls(dialect.calls, [ToolCall("write", {"content": content})])
    form = AnswerFormat(dialect, TOOLS, may_think=False)
    assert meaning(read(form, [written])) == [("write", {"content": content})]
    assert meaning(read(form, written)) == [("write", {"content": content})]


strays = st.sampled_from(
    ["<think>", "</think>", "</thi", "nk>", "`", "```", '"', "'", "\n", " ", "x", "it's", HERMES,
     "<tool_call>"]
)  # fmt: skip


@given(st.lists(strays, max_size=14), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_every_split_of_stray_marks_gives_the_same_events(
    pieces: list[str], begun: bool, may_think: bool
) -> None:
    dialect = replace(DIALECTS["hermes"], thinking=THINKING)
    form = AnswerFormat(dialect, TOOLS, is_in_thought=begun, may_think=may_think)
    text = "".join(pieces)
    whole = read(form, [text])
    assert content_of_events(whole) == content_of(text)
    assert read(form, pieces) == whole
    assert read(form, text) == whole


@given(st.lists(st.sampled_from(["</think>", "x", "\n", " ", "y"]), max_size=14), st.booleans())
@settings(max_examples=200)
def test_unquoted_closing_marks_are_always_dropped(pieces: list[str], begun: bool) -> None:
    form = AnswerFormat(replace(DIALECTS["hermes"], thinking=THINKING), is_in_thought=begun)
    events = read(form, ["".join(pieces)])
    texts = [event.text for event in events if isinstance(event, Text | Thought)]
    assert "</think>" not in "".join(texts)
    expected = "".join(pieces).replace("</think>", "").split()
    assert "".join("".join(texts).split()) == "".join(expected)


def test_a_thought_mark_after_a_prefill_is_text() -> None:
    form = AnswerFormat(replace(DIALECTS["hermes"], thinking=THINKING), may_think=False)
    assert read(form, ["<think>x</think>"]) == [Text("<think>x</think>")]


def test_blanks_around_an_answer_without_marks_are_kept() -> None:
    assert read(form_of("hermes"), [" a \n"]) == [Text(" a \n")]
    assert read(form_of("hermes"), [" \n"]) == [Text(" \n")]


def test_the_deepest_accepted_input_can_be_sent_back() -> None:
    deepest = '{"a": ' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1)
    assert is_json(deepest)
    assert not is_json(f'{{"a": {deepest}}}')
    use = f'{{"type": "tool_use", "id": "toolu_1", "name": "find", "input": {deepest}}}'
    turn = f'{{"role": "assistant", "content": [{use}]}}'
    decode(f'{{"requests": [{{"params": {{"messages": [{turn}]}}}}]}}'.encode())


@pytest.mark.parametrize(
    ("text", "marks", "length"),
    [
        ("ab<", ["<x>"], 2),
        ("a<x", ["<x>"], 1),
        ("a<x>", ["<x>"], 4),
        ("<x", ["y", "<x>", ""], 0),
        ("ab", ["<x>"], 2),
        ("ab", [], 2),
        ("xy", ["y"], 2),
    ],
)
def test_only_an_ending_that_may_begin_a_mark_is_unsettled(
    text: str, marks: list[str], length: int
) -> None:
    assert settled_length(text, marks) == length


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<x><y>", (0, "<x>")),
        ("a<y><x>", (1, "<y>")),
        ("<x>z", (0, "<x>z")),
        ("<x", (-1, "")),
    ],
)
def test_the_first_and_longest_mark_is_found(text: str, found: tuple[int, str]) -> None:
    assert find_first(["<x>", "<y>", "<x>z"], text) == found
