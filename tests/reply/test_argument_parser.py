"""Inputs of calls: every value is parsed, in the form of every family."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.format_calls import format_calls
from pensieve.reply.json_prefix import MAX_DEPTH
from pensieve.reply.parse_events import ToolCallEnd, ToolCallStart
from tests.dialects.cases import DIALECTS
from tests.reply.test_answer_parser import any_dialect, filled, form_of, meaning, read

texts = st.lists(
    st.sampled_from([*'aé🙂 \n\t"\\/<>{}[]():,=|_x0',
                     "</parameter>", "</arg_value>", '<|"|>', "<escape>"]),
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
@settings(max_examples=60)
def test_any_string_argument_survives_formatting_and_parsing(
    name: str, path: str, content: str
) -> None:
    dialect = DIALECTS[name]
    arguments = {"path": path, "content": content, "mode": 7}
    written = format_calls(dialect.calls, [ToolCall("write", arguments)])
    assert meaning(read(form_of(name), [filled(written)])) == [("write", arguments)]


@given(values | st.text("a'\"\\\n\t\r\0\x7f\xa0\u2028,)]}", max_size=8))
@example("it's \"\\")
@settings(max_examples=100)
def test_any_python_literal_argument_parses_to_its_value(value: Any) -> None:
    # LFM2 writes calls in Python syntax.
    written = f"<|tool_call_start|>[clock(a={value!r}, b = {[value]!r}, c=1)]<|tool_call_end|>"
    expected = [("clock", {"a": value, "b": [value], "c": 1})]
    assert meaning(read(form_of("lfm2"), [written])) == expected
    assert meaning(read(form_of("lfm2"), written)) == expected


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"'\u00e9\xe9\/\b\f'", "éé/\b\f"),
        (r"'\u00E9a\xE9a\xFF'", "éaéaÿ"),
        (r"'a\qb\?'", r"a\qb\?"),
        (r"'\u12g4 \xg1 \x1g'", r"\u12g4 \xg1 \x1g"),
        ("'a\\\nb'", "ab"),
        ("'a\nb'", "a\nb"),
        ("nobody", "nobody"),
        ("[1e999, None]", "[1e999, None]"),
        ("f(x, ')')", "f(x, ')')"),
    ],
)
def test_unknown_escapes_and_invalid_values_become_text(written: str, text: str) -> None:
    call = f"<|tool_call_start|>[clock(a={written})]<|tool_call_end|>"
    assert meaning(read(form_of("lfm2"), [call])) == [("clock", {"a": text})]


@pytest.mark.parametrize("written", ["x]", "x}", "[1]]"])
def test_an_unbalanced_bracket_leaves_a_python_call_unfinished(written: str) -> None:
    call = f"<|tool_call_start|>[clock(a={written})]<|tool_call_end|>"
    [(tool, _, state)] = meaning(read(form_of("lfm2"), [call]))
    assert (tool, state) == ("clock", "unfinished")


@pytest.mark.parametrize("name", ["hermes", "gemma4", "lfm2"])
@given(values)
@settings(max_examples=60)
def test_any_json_argument_survives_formatting_and_parsing(name: str, value: Any) -> None:
    arguments = {"a": value, "b c": [value]}
    written = format_calls(DIALECTS[name].calls, [ToolCall("clock", arguments)])
    assert meaning(read(form_of(name), [written])) == [("clock", arguments)]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"b":1,<|"|>c%20d<|"|>:2, e%20f : 3}', {"b": 1, "c%20d": 2, "e f": 3}),
        ('[1, "x\\"", <|"|>y"<|"|> ,None,]', [1, 'x"', 'y"', None]),
        ("{ b:{},c:[ ],}", {"b": {}, "c": []}),
        ("a b?", "a b?"),
    ],
)
def test_variants_of_gemma_values_are_accepted(written: str, value: Any) -> None:
    call = f"<|tool_call>call:clock{{a:{written}}}<tool_call|>"
    assert meaning(read(form_of("gemma4"), [call])) == [("clock", {"a": value})]


@pytest.mark.parametrize(
    "written", ['{"b" 1}', '["x" 1]', '{"b":1]', "[" * MAX_DEPTH + "]" * MAX_DEPTH]
)
def test_an_invalid_gemma_value_ends_the_call_as_incomplete(written: str) -> None:
    call = f"<|tool_call>call:clock{{a:{written}}}<tool_call|>"
    assert ToolCallEnd(is_whole=False) in read(form_of("gemma4"), [call])


def test_a_gemma_value_at_the_depth_limit_is_accepted() -> None:
    written = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    call = f"<|tool_call>call:clock{{a:{written}}}<tool_call|>"
    assert meaning(read(form_of("gemma4"), [call])) == [("clock", {"a": json.loads(written)})]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("hermes", '<tool_call>\n{"name": "clock", "arguments": ', "}\n</tool_call>"),
        ("mistral-named", "[TOOL_CALLS]clock[ARGS]", ""),
    ],
)
@pytest.mark.parametrize("written", ["[1]", '"[1]"', '"{} {}"', '""', "5", "null"])
def test_an_input_that_is_not_an_object_ends_the_call_as_incomplete(
    name: str, before: str, after: str, written: str
) -> None:
    events = read(form_of(name), [before + written + after])
    assert events == [ToolCallStart("clock"), ToolCallEnd(is_whole=False)]


@pytest.mark.parametrize(("name", "tags"), [
    ("qwen-coder", ("<tool_call>\n<function=t>\n<parameter=a>\n",
                    "\n</parameter>\n</function>\n</tool_call>")),
    ("glm-4.7", ("<tool_call>t<arg_key>a</arg_key><arg_value>", "</arg_value></tool_call>")),
])  # fmt: skip
@pytest.mark.parametrize(
    ("part", "written", "value"),
    [
        ({"type": "string"}, "null", "null"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "x", "x"),
        ({"type": ["string", "null"]}, '"null"', "null"),
        ({"type": ["string", "array"]}, '["x"]', ["x"]),
        (
            {"anyOf": [{"enum": ["x"]}, {"type": "array"}]},
            '["</parameter></arg_value>"]',
            ["</parameter></arg_value>"],
        ),
        ({"anyOf": [{"enum": ["x"]}, {"type": "array"}]}, "x", "x"),
        ({"type": "integer"}, "5", 5),
        ({"type": "integer"}, "-5 x", "-5 x"),
        ({"type": "array"}, '[1, "</parameter></arg_value>"]', [1, "</parameter></arg_value>"]),
        ({"type": "array"}, "[1] ", [1]),
        ({"type": "boolean"}, "True", True),
        ({"type": "object"}, "{'a': None}", {"a": None}),
        ({}, "", ""),
    ],
)
def test_a_value_between_tags_has_the_type_of_the_schema(
    name: str, tags: tuple[str, str], part: dict[str, Any], written: str, value: Any
) -> None:
    form = AnswerFormat(DIALECTS[name], {"t": {"type": "object", "properties": {"a": part}}})
    events = read(form, [tags[0] + written + tags[1]])
    assert json.dumps(meaning(events)) == json.dumps([("t", {"a": value})])
    assert read(form, tags[0] + written + tags[1]) == events
