"""What an answer's text means, in every dialect, however it is cut."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pensieve.api.json_body import decode
from pensieve.dialects.answer import AnswerForm
from pensieve.dialects.dialect import ThinkingForm, ToolCall
from pensieve.dialects.writing import written_calls
from pensieve.reply.json_text import MAX_DEPTH, is_json
from pensieve.reply.reading import AnswerReader
from pensieve.reply.said import CallBegan, CallEnded, CallInput, Said, Text, Thought, merged
from tests.dialects.cases import CASES, CODE, DIALECTS, HERMES, NOW, PARIS, ROME, TOOLS, Case

any_dialect = pytest.mark.parametrize("name", DIALECTS)
THINKING = ThinkingForm("<think>", "</think>")


def form_of(name: str, **fields: Any) -> AnswerForm:
    return AnswerForm(DIALECTS[name], TOOLS, **fields)


def read(form: AnswerForm, pieces: Iterable[str], *, is_cut: bool = False) -> list[Said]:
    reader = AnswerReader(form)
    said = [one for piece in pieces for one in reader.feed(piece)]
    return merged(said + reader.flush(is_cut=is_cut))


def meaning(said: Sequence[Said]) -> list[Any]:
    """Texts as they are, thoughts in brackets, calls as pairs of name and input. An input that is not whole is a text."""
    found: list[Any] = []
    for one in said:
        match one:
            case Text(text):
                found.append(text)
            case Thought(text):
                found.append(f"({text})")
            case CallBegan(name):
                found.append((name, {}))
            case CallInput(text):
                found[-1] = (found[-1][0], json.loads(text) if is_json(text) else text)
            case CallEnded():
                pass
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dialect}: {case.written[:40]}")
def test_what_a_family_writes_is_read_as_it_is_meant(case: Case) -> None:
    assert meaning(read(form_of(case.dialect), [case.written])) == case.means


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dialect}: {case.written[:40]}")
def test_however_it_is_cut_it_means_the_same(case: Case) -> None:
    whole = read(form_of(case.dialect), [case.written])
    assert read(form_of(case.dialect), case.written) == whole
    for at in range(len(case.written)):
        assert read(form_of(case.dialect), [case.written[:at], case.written[at:]]) == whole


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dialect}: {case.written[:40]}")
def test_input_is_told_while_it_is_written_and_begins_json_at_any_moment(case: Case) -> None:
    reader = AnswerReader(form_of(case.dialect))
    so_far = ""
    for letter in case.written:
        for one in reader.feed(letter):
            match one:
                case CallBegan():
                    so_far = ""
                case CallInput(text):
                    so_far += text
                    assert begins_json(so_far), so_far
                case _:
                    pass


def begins_json(text: str) -> bool:
    """Checked by completing it: a text that is open is closed, and so is every bracket."""
    closers, in_text, escaped = "", False, False
    for letter in text:
        if in_text:
            in_text, escaped = letter != '"' or escaped, letter == "\\" and not escaped
        elif letter == '"':
            in_text = True
        elif letter in "{[":
            closers += "}" if letter == "{" else "]"
        elif letter in "}]":
            closers = closers[:-1]
    ends = (
        ['"']
        if in_text
        else ["", "0", "null", '"": 0', ": 0", "rue", "ue", "e", "alse", "lse", "se"]
    )
    ends += ['": 0', "ull", "ll", "l"]
    return any(is_json(text + end + closers[::-1]) for end in ends)


def filled(written: str) -> str:
    """With an id where the model would make one up."""
    for mark in ("[CALL_ID]", '"id": "'):
        written = written.replace(f"{mark}{{id}}", f"{mark}a12345678")
    return written


@any_dialect
def test_what_is_written_for_history_is_read_as_the_same_calls(name: str) -> None:
    dialect = DIALECTS[name]
    several = [PARIS, CODE, NOW, ROME]
    if not dialect.calls.opening or dialect.text_opening:
        several = [CODE]
    written = written_calls(dialect.calls, [ToolCall(*call) for call in several])
    assert meaning(read(form_of(name), filled(written))) == several


texts = st.lists(
    st.sampled_from([*'aé🙂 \n\t"\\/<>{}[]():,=|_x0', "</parameter>", "</arg_value>", '<|"|>', "<escape>"]),
    max_size=30,
).map("".join)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)


@any_dialect
@given(path=texts, content=texts)
@settings(max_examples=60, deadline=None)
def test_any_text_comes_through_a_call_unchanged(name: str, path: str, content: str) -> None:
    dialect = DIALECTS[name]
    arguments = {"path": path, "content": content, "mode": 7}
    written = written_calls(dialect.calls, [ToolCall("write", arguments)])
    assert meaning(read(form_of(name), [filled(written)])) == [("write", arguments)]


@given(values)
@settings(max_examples=100, deadline=None)
def test_any_json_comes_through_a_json_call_unchanged(value: Any) -> None:
    written = written_calls(DIALECTS["hermes"].calls, [ToolCall("clock", {"a": value})])
    assert meaning(read(form_of("hermes"), [written])) == [("clock", {"a": value})]


marks = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<think>", "</think>", '{"name": "clock"', ', "arguments": {', "}", "{",
     '"a": ', "x", " ", "\n", "<", "```json\n", "```", "[", '"', "\\", HERMES, "1", "tru", "\ud83d\ude42"]
)  # fmt: skip


@pytest.mark.parametrize("name", ["hermes", "plain", "llama3", "qwen-coder", "harmony", "lfm2"])
@given(st.lists(marks, max_size=12), st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_cut_of_any_text_gives_the_same(
    name: str, pieces: list[str], begun: bool, data: st.DataObject
) -> None:
    dialect = DIALECTS[name]
    form = AnswerForm(
        replace(dialect, thinking=dialect.thinking or THINKING), TOOLS, is_in_thought=begun
    )
    text = "".join(pieces)
    is_cut = data.draw(st.booleans())
    whole = read(form, [text], is_cut=is_cut)
    assert read(form, text, is_cut=is_cut) == whole
    assert read(form, pieces, is_cut=is_cut) == whole


@given(st.lists(marks, max_size=12))
@example(["<tool_call>", '{"name": "clock"', "}", '{"name": "clock"'])
@settings(max_examples=200, deadline=None)
def test_no_letter_is_lost_or_invented(pieces: list[str]) -> None:
    """All that is left out are blanks and the letters of marks and of the JSON around a call."""
    text = "".join(pieces)
    said = read(form_of("hermes"), [text])
    rest = text
    for one in said:
        if one == CallInput("{}"):
            continue  # what a call without any input is given
        words = {Text: "text", Thought: "text", CallBegan: "name", CallInput: "json"}.get(type(one))
        for letter in getattr(one, words) if words else "":
            place = rest.find(letter)
            if place < 0 and isinstance(one, CallInput):
                continue  # the input of a call without any, or what stands for a raw line break
            assert place >= 0, (letter, rest)
            rest = rest[place + 1 :]


def test_an_answer_without_tools_is_text_whatever_is_in_it() -> None:
    text = f" {HERMES} <think>x</think>\n"
    assert read(AnswerForm(DIALECTS["hermes"]), [text]) == [Text(text)]


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
def test_markup_inside_a_text_of_a_call_is_no_call(name: str, hidden: str) -> None:
    """For families whose calls are JSON, at any place in the text (hardening S17)."""
    for content in (hidden, f"a {hidden} b"):
        written = written_calls(DIALECTS[name].calls, [ToolCall("write", {"content": content})])
        assert meaning(read(form_of(name), [written])) == [("write", {"content": content})]
        assert meaning(read(form_of(name), written)) == [("write", {"content": content})]


def test_a_raw_line_break_in_a_text_becomes_the_escape_that_it_should_be() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"content": "a\n\tb"}}\n</tool_call>'
    assert meaning(read(form_of("hermes"), [written])) == [("write", {"content": "a\n\tb"})]


def test_half_a_character_becomes_one_that_can_be_read() -> None:
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
def test_what_only_begins_like_a_call_is_text(written: str, means: list[Any]) -> None:
    assert meaning(read(form_of("plain"), [written])) == means
    assert meaning(read(form_of("plain"), written)) == means


def test_a_call_that_breaks_off_in_its_input_is_told_as_far_as_it_went() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"path": "a", oh no'
    said = read(form_of("hermes"), [written])
    assert said == [
        CallBegan("write"),
        CallInput('{"path": "a", '),
        CallEnded(is_whole=False),
        Text("oh no"),
    ]


def test_a_call_that_is_cut_off_is_not_ended() -> None:
    written = '<tool_call>\n{"name": "write", "arguments": {"path": "a'
    said = read(form_of("hermes"), [written], is_cut=True)
    assert said == [CallBegan("write"), CallInput('{"path": "a')]


@pytest.mark.parametrize("cut", range(1, len("<tool_call>")))
def test_half_a_mark_is_not_said_where_there_is_nothing_but_calls(cut: int) -> None:
    begun = "<tool_call>"[:cut]
    assert read(form_of("plain", has_text=False), [begun], is_cut=True) == []
    assert meaning(read(form_of("plain"), [begun], is_cut=True)) == [begun]
    behind = f"{written_calls(DIALECTS['plain'].calls, [ToolCall(*NOW)])}\n{begun}"
    said = read(form_of("plain", has_text=False), [behind], is_cut=True)
    assert meaning(said) == [NOW]


def test_markup_that_is_cut_off_before_the_name_is_not_said() -> None:
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
        (False, "I <think> so", ["I <think> so"]),
        (False, "<thin ice", ["<thin ice"]),
    ],
)
def test_thoughts_stand_at_the_beginning_between_their_marks(
    begun: bool, written: str, means: list[Any]
) -> None:
    form = AnswerForm(replace(DIALECTS["hermes"], thinking=THINKING), TOOLS, is_in_thought=begun)
    assert meaning(read(form, [written])) == means
    assert meaning(read(form, written)) == means


@pytest.mark.parametrize(
    ("begun", "written", "means"),
    [
        # Closes nothing: at the beginning, twice, after text, before a call.
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
        (False, "It `ends`</think>, it's done", ["It `ends`, it's done"]),
        (False, "```xml\n</think>\n```\n</think>.", ["```xml\n</think>\n```\n."]),
        # Not a mark, though it begins like one.
        (False, "a </thi", ["a </thi"]),
        (False, "a </thinking> b", ["a </thinking> b"]),
    ],
)
def test_a_mark_that_closes_nothing_is_not_said(
    begun: bool, written: str, means: list[Any]
) -> None:
    form = AnswerForm(replace(DIALECTS["hermes"], thinking=THINKING), TOOLS, is_in_thought=begun)
    assert meaning(read(form, [written])) == means
    assert meaning(read(form, written)) == means


@pytest.mark.parametrize("name", ["hermes", "plain", "mistral", "qwen-coder", "minimax"])
def test_a_closing_mark_inside_a_call_stays_what_it_is(name: str) -> None:
    dialect = replace(DIALECTS[name], thinking=THINKING)
    content = "a</think></think> <think>b"
    written = written_calls(dialect.calls, [ToolCall("write", {"content": content})])
    form = AnswerForm(dialect, TOOLS, may_think=False)
    assert meaning(read(form, [written])) == [("write", {"content": content})]
    assert meaning(read(form, written)) == [("write", {"content": content})]


strays = st.sampled_from(
    ["<think>", "</think>", "</thi", "nk>", "`", "```", '"', "'", "\n", " ", "x", "it's", HERMES, "<tool_call>"]
)  # fmt: skip


@given(st.lists(strays, max_size=14), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_stray_marks_are_read_alike_however_they_are_cut(
    pieces: list[str], begun: bool, may_think: bool
) -> None:
    dialect = replace(DIALECTS["hermes"], thinking=THINKING)
    form = AnswerForm(dialect, TOOLS, is_in_thought=begun, may_think=may_think)
    whole = read(form, ["".join(pieces)])
    assert read(form, pieces) == whole
    assert read(form, "".join(pieces)) == whole


@given(st.lists(st.sampled_from(["</think>", "x", "\n", " ", "y"]), max_size=14), st.booleans())
@settings(max_examples=200, deadline=None)
def test_without_quotes_or_opening_marks_no_closing_mark_is_ever_said(
    pieces: list[str], begun: bool
) -> None:
    form = AnswerForm(replace(DIALECTS["hermes"], thinking=THINKING), is_in_thought=begun)
    said = read(form, ["".join(pieces)])
    texts = [one.text for one in said if isinstance(one, Text | Thought)]
    assert "</think>" not in "".join(texts)
    words = "".join(pieces).replace("</think>", "").split()
    assert "".join("".join(texts).split()) == "".join(words)


def test_behind_a_prefill_nothing_is_a_thought() -> None:
    form = AnswerForm(replace(DIALECTS["hermes"], thinking=THINKING), may_think=False)
    assert read(form, ["<think>x</think>"]) == [Text("<think>x</think>")]


def test_blanks_at_the_ends_of_an_answer_without_marks_are_kept() -> None:
    assert read(form_of("hermes"), [" a \n"]) == [Text(" a \n")]
    assert read(form_of("hermes"), [" \n"]) == [Text(" \n")]


def test_an_input_as_deep_as_it_is_read_can_be_sent_back() -> None:
    deepest = '{"a": ' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1)
    assert is_json(deepest)
    assert not is_json(f'{{"a": {deepest}}}')
    use = f'{{"type": "tool_use", "id": "toolu_1", "name": "find", "input": {deepest}}}'
    turn = f'{{"role": "assistant", "content": [{use}]}}'
    decode(f'{{"requests": [{{"params": {{"messages": [{turn}]}}}}]}}'.encode())
