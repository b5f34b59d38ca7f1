"""Calls without marks at the end of an answer, in every dialect."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.format_calls import format_calls
from pensieve.reply.parse_events import ToolCallStart
from tests.dialects.cases import CODE, DIALECTS, NOW, PARIS, ROME
from tests.reply.test_answer_parser import (
    content_of,
    content_of_events,
    filled,
    form_of,
    meaning,
    read,
)

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
def test_a_bare_call_at_the_end_is_parsed(name: str, written: str, means: list[Any]) -> None:
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
        f"- a\n{CALL} is it",
        f'Text\n{{"note": "x",\n{CALL[1:]}',
    ],
)
def test_a_bare_call_that_is_quoted_or_followed_by_text_is_text(name: str, text: str) -> None:
    assert meaning(read(form_of(name), [text])) == [text]
    assert meaning(read(form_of(name), text)) == [text]


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "unknown", "arguments": {}}',
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
def test_a_bare_call_that_violates_the_schemas_is_text(name: str, text: str) -> None:
    for written in (text, f"Look.\n{text}", f"```json\n{text}\n```"):
        assert meaning(read(form_of(name), [written])) == [written]


LATER = '{"name": "clock", "arguments": {}}'


@any_dialect
@pytest.mark.parametrize(
    ("written", "means"),
    [
        (f"{CALL}\n{LATER}", [PARIS, NOW]),
        (f"{CALL}{LATER}\n{WRITTEN}", [PARIS, NOW, CODE]),
        (f"```json\n{CALL}\n{LATER}\n```", [PARIS, NOW]),
        (f"```json\n{CALL}\n```\n```tool_call\n{LATER}\n```\n", [PARIS, NOW]),
        (f"Both.\n{CALL}\n\n```\n{LATER}\n```", ["Both.", PARIS, NOW]),
    ],
)
def test_several_bare_calls_are_all_parsed(name: str, written: str, means: list[Any]) -> None:
    assert meaning(read(form_of(name), [written])) == means
    assert meaning(read(form_of(name), written)) == means


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize(
    "text",
    [
        f"{CALL}\n{LATER} and so on",
        f'{CALL}\n{{"name": "unknown", "arguments": {{}}}}',
        f"{CALL}\n```\n{LATER}",
        f"```json\n{CALL}\n\n```\nThat is it.\n",
        f"{CALL}, {LATER} x",
        f"{CALL}? {LATER}",
        f"{CALL}\n{LATER[:-1]}",
        f"{CALL}\n``",
    ],
)
def test_several_bare_calls_with_an_invalid_one_are_text(name: str, text: str) -> None:
    assert meaning(read(form_of(name), [text])) == [text]
    assert meaning(read(form_of(name), text)) == [text]


@pytest.mark.parametrize("name", MARKED)
def test_bare_calls_beyond_the_maximum_are_text(name: str) -> None:
    form = form_of(name, max_calls=1)
    assert meaning(read(form, [CALL])) == [PARIS]
    assert meaning(read(form, [f"{CALL}\n{LATER}"])) == [CALL, NOW]
    marked = filled(format_calls(DIALECTS[name].calls, [ToolCall(*PARIS)]))
    assert meaning(read(form, [f"{marked}\n{LATER}"])) == [PARIS, LATER]


def unmarked(name: str, *calls: tuple[str, dict[str, Any]]) -> str:
    """Return calls in the family's form without the opening mark."""
    form = DIALECTS[name].calls
    written = filled(format_calls(form, [ToolCall(*call) for call in calls]))
    return written.replace(form.opening, "")


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("has_closing", [True, False], ids=["closing", "nothing"])
def test_a_bare_call_in_the_form_of_its_family_is_parsed(name: str, *, has_closing: bool) -> None:
    for calls in ([PARIS], [CODE, PARIS], [ROME, CODE, ROME]):
        form = DIALECTS[name].calls
        if len(calls) > 1 and not form.closing and not has_closing:
            continue  # the mark that ends a call separates it from the next one
        bare = unmarked(name, *calls)
        if not has_closing:
            last_mark = form.closing or (form.after_arguments if form.keys is None else "")
            bare = bare.replace(last_mark or "\0", "")
        for text, before in ((bare, []), (f"So:\n{bare}\n", ["So:"])):
            assert meaning(read(form_of(name), [text])) == [*before, *calls]
            assert meaning(read(form_of(name), text)) == [*before, *calls]
        if form.closing or has_closing:
            fenced = f"So:\n```xml\n{bare.strip()}\n```"
            assert meaning(read(form_of(name), fenced)) == ["So:", *calls]


@pytest.mark.parametrize("name", MARKED)
def test_a_bare_family_call_that_is_quoted_or_followed_by_text_is_text(name: str) -> None:
    bare = unmarked(name, PARIS).strip()
    for text in (f"Use {bare}", f"`{bare}`", f"```\n{bare}\n```\nis one", f"> {bare}"):
        assert meaning(read(form_of(name), [text])) == [text]
        assert meaning(read(form_of(name), text)) == [text]


@pytest.mark.parametrize("name", MARKED)
def test_a_bare_family_call_that_violates_the_schemas_is_text(name: str) -> None:
    for call in (("unknown", {}), ("get_weather", {}), ("get_weather", {"city": "a", "x": 1})):
        bare = unmarked(name, call).strip()
        assert meaning(read(form_of(name), [bare])) == [bare]


@any_dialect
def test_a_tool_name_at_the_beginning_of_a_line_is_text(name: str) -> None:
    several = "clock\nget_weather is a tool\nwrite: a, b\ncall:clock\n[clock]\n<function"
    for text in (several, "clock", "Which?\nclock"):
        assert meaning(read(form_of(name), [text])) == [text]
        assert meaning(read(form_of(name), text)) == [text]


SEPARATORS = [
    (name, separator)
    for name, dialect in DIALECTS.items()
    for form in [dialect.calls]
    for separator in dict.fromkeys(
        part.strip() for part in (form.closing, form.separator or "", form.between)
    )
    if separator
]


@pytest.mark.parametrize(("name", "separator"), SEPARATORS)
def test_a_separator_of_calls_counts_only_directly_after_a_call(name: str, separator: str) -> None:
    written = filled(format_calls(DIALECTS[name].calls, [ToolCall(*PARIS)]))
    text = f"{separator} {LATER}"
    assert meaning(read(form_of(name), [f"{written}\n{text}"])) == [PARIS, NOW]
    for before in ("", "Look.\n"):
        assert meaning(read(form_of(name), [before + text])) == [before + text]
    after = meaning(read(form_of(name), [f"{written}\nLook.\n{text}"]))
    assert after == [PARIS, f"Look.\n{text}"]


@any_dialect
def test_a_bare_call_after_a_marked_one_is_parsed(name: str) -> None:
    form = DIALECTS[name]
    written = filled(format_calls(form.calls, [ToolCall(*PARIS)]))
    between = form.calls.between or "\n"
    assert meaning(read(form_of(name), [f"{written}{between}{LATER}"])) == [PARIS, NOW]
    assert meaning(read(form_of(name), f"{written}{between}{LATER}")) == [PARIS, NOW]


def test_a_bare_call_in_the_final_channel_is_parsed() -> None:
    text = f"<|channel|>final<|message|>I look.\n{CALL}"
    assert meaning(read(form_of("harmony"), [text])) == ["I look.", PARIS]
    assert meaning(read(form_of("harmony"), text)) == ["I look.", PARIS]


def test_a_bare_call_without_tools_is_text() -> None:
    form = form_of("hermes")
    assert meaning(read(type(form)(form.dialect), [CALL])) == [CALL]


pieces = st.sampled_from(
    [CALL, "{", "}", "```", "```json\n", "\n", " ", "x", '"', "`", '{"name": "clock"',
     "<tool_call>", "<", LATER, "</tool_call>", ";", "<function=clock>", "</function>",
     "call:clock{}", "[clock()]", "clock", "[ARGS]"]
)  # fmt: skip


@any_dialect
@given(st.lists(pieces, max_size=10))
@example(["x", "\n", "{", "x"])
@settings(max_examples=60)
def test_every_split_of_bare_calls_gives_the_same_events(name: str, parts: list[str]) -> None:
    text = "".join(parts)
    whole = read(form_of(name), [text])
    # The content of a marked call may be its name, or be dropped if the call is cut off.
    if not any(isinstance(event, ToolCallStart) for event in whole):
        assert content_of_events(whole) == content_of(text)
    assert read(form_of(name), parts) == whole
    assert read(form_of(name), text) == whole
