"""Calls without their marks: what ends an answer and is exactly a call of a tool at hand, in every dialect."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.cases import CODE, DIALECTS, PARIS
from tests.reply.test_reading import form_of, meaning, read

any_dialect = pytest.mark.parametrize("name", DIALECTS)
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
WRITTEN = json.dumps({"name": CODE[0], "arguments": CODE[1]})
MARKED = [name for name in DIALECTS if DIALECTS[name].calls.opening]


@any_dialect
@pytest.mark.parametrize(
    ("written", "means"),
    [
        (CALL, [PARIS]),
        (f"\n{CALL}\n", [PARIS]),
        (f"```json\n{CALL}\n```", [PARIS]),
        (f"```\n{CALL}\n```\n", [PARIS]),
        (f"Let me look.\n\n{CALL}", ["Let me look.", PARIS]),
        (f"So:\n```json\n{CALL}\n```", ["So:", PARIS]),
        (f"```py\nx = {{}}\n```\n{CALL}", ["```py\nx = {}\n```", PARIS]),
        (f"I write.\n{WRITTEN}", ["I write.", CODE]),
    ],
)
def test_a_bare_call_at_the_end_is_that_call(name: str, written: str, means: list[Any]) -> None:
    assert meaning(read(form_of(name), [written])) == means
    assert meaning(read(form_of(name), written)) == means


@any_dialect
@pytest.mark.parametrize(
    "text",
    [
        f"Use {CALL}",
        f"> {CALL}",
        f"`{CALL}`",
        f'"{CALL}"',
        f"```json\n{CALL}\n```\nThat is an example.",
        f"```json\n{CALL}",
        f"```\nan example:\n{CALL}\n```",
        f"[\n{CALL}\n]",
        f"- a\n{CALL} is it",
        f'Text\n{{"note": "x",\n{CALL[1:]}',
    ],
)
def test_a_call_that_is_quoted_or_not_the_end_is_text(name: str, text: str) -> None:
    assert meaning(read(form_of(name), [text])) == [text]
    assert meaning(read(form_of(name), text)) == [text]


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nobody", "arguments": {}}',
        '{"name": "clock"}',
        '{"name": "get_weather", "arguments": {}}',
        '{"name": "get_weather", "arguments": {"city": 5}}',
        '{"name": "get_weather", "arguments": {"city": "Rome", "unit": "kelvin"}}',
        '{"name": "get_weather", "arguments": {"city": "Rome", "planet": "Mars"}}',
        '{"name": "write", "arguments": {"path": "a", "content": "b", "tags": [1]}}',
        '{"city": "Paris"}',
        CALL[:-1],
    ],
)
def test_what_the_tools_do_not_take_is_no_bare_call(name: str, text: str) -> None:
    for written in (text, f"Look.\n{text}", f"```json\n{text}\n```"):
        assert meaning(read(form_of(name), [written])) == [written]


def test_without_tools_there_are_no_bare_calls() -> None:
    form = form_of("hermes")
    assert meaning(read(type(form)(form.dialect), [CALL])) == [CALL]


pieces = st.sampled_from(
    [CALL, "{", "}", "```", "```json\n", "\n", " ", "x", '"', "`", '{"name": "clock"', "<tool_call>", "<"]
)  # fmt: skip


@any_dialect
@given(st.lists(pieces, max_size=10))
@settings(max_examples=60, deadline=None)
def test_bare_calls_are_found_alike_however_the_text_is_cut(name: str, parts: list[str]) -> None:
    whole = read(form_of(name), ["".join(parts)])
    assert read(form_of(name), parts) == whole
    assert read(form_of(name), "".join(parts)) == whole
