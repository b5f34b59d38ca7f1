"""Enforce lengths and patterns of unquoted texts in the grammar."""

from typing import Any

import pytest

from pensieve.dialects.dialect import ToolCall, ToolSpec
from pensieve.dialects.format_calls import format_calls
from pensieve.dialects.grammar.answer_grammar import CallLimits
from pensieve.dialects.grammar.schema_simplifier import arguments_schema
from pensieve.dialects.grammar.text_limits import length_limit, pattern_limit
from tests.dialects.cases import DIALECTS
from tests.dialects.grammar.test_answer_grammar import takes

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"minLength": 2, "maxLength": 3}, ["ab", "é🙂x", "\n\n"], ["", "a", "abcd"]),
    ({"maxLength": 2}, ["", "a<"], ["abc"]),
    ({"minLength": 1}, ["a", "a" * 200], [""]),
    ({"pattern": "^[a-z]+(-[a-z]+)*$"}, ["a", "ab-c"], ["", "a-", "-", "A"]),
    ({"pattern": r"^\d{4}/\d{2}$"}, ["2026/11"], ["26/11", "2026/11 "]),
    ({"pattern": "^(a|b)$", "maxLength": 1}, ["a", "b"], ["ab", "c"]),
]  # fmt: skip


@pytest.mark.parametrize("name", ["qwen-coder", "glm", "minimax", "gemma4", "function-gemma"])
@pytest.mark.parametrize("has_tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize(("keywords", "taken", "refused"), CASES, ids=lambda one: str(one)[:30])
def test_text_obeys_its_length_and_pattern(
    name: str, *, has_tokens: bool, keywords: dict[str, Any], taken: list[str], refused: list[str]
) -> None:
    check(name, keywords, taken, refused, has_tokens=has_tokens)


def check(
    name: str, keywords: dict[str, Any], taken: list[str], refused: list[str], *, has_tokens: bool
) -> None:
    """Check which texts the grammar of a schema with `keywords` takes."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", **keywords}},
        "required": ["a"],
    }
    limits = CallLimits(
        [ToolSpec("quartz", "", arguments_schema(schema))], min_calls=1, max_calls=1
    )
    for text in (*taken, *refused):
        written = format_calls(DIALECTS[name].calls, [ToolCall("quartz", {"a": text})])
        is_taken = takes(DIALECTS[name], limits, written, has_tokens=has_tokens)
        assert is_taken == (text in taken), text


NESTED = ("gemma4", "function-gemma")


@pytest.mark.parametrize("name", ["qwen-coder", "glm", "minimax", *NESTED])
def test_text_with_the_closing_mark_obeys_its_length_and_pattern(name: str) -> None:
    form = DIALECTS[name].calls.parameters
    assert form is not None
    mark = form.text_end
    lengths = {"minLength": len(mark) + 1, "maxLength": len(mark) + 1}
    check(name, lengths, [f"{mark}a"], [mark, f"{mark}ab"], has_tokens=False)
    if name in NESTED:
        check(name, {"pattern": "a$"}, [f"{mark}a"], [f"{mark}b"], has_tokens=False)


@pytest.mark.parametrize(
    ("pattern", "mark", "expression"),
    [
        ("^a$", "</p>", "(?:a)"),
        ("^a/b$", "</p>", r"(?:a\/b)"),
        ("a", "", "(?s:.*)(?:a)(?s:.*)"),
        ("^a", "", "(?:a)(?s:.*)"),
        ("^[<]$", "", "(?:[<])"),
        ("^(?:a|b)$", "</p>", "(?:(?:a|b))"),
        ("a|b", "", "(?s:.*)(?:a|b)(?s:.*)"),
        ("^a\nb$", "</p>", r"(?:a\nb)"),
        ("^a{64}$", "</p>", "(?:a{64})"),
        (f"^{'a' * 126}$", "</p>", f"(?:{'a' * 126})"),
        # They may match texts that contain the mark.
        ("a", "</p>", None),
        ("^[<]$", "</p>", None),
        ("^.*$", "</p>", None),
        ("^[^a]$", "</p>", None),
        (r"^\S$", "</p>", None),
        # These are not plain patterns.
        ("^a|b$", "", None),
        ("^a|b", "", None),
        ("a|b$", "", None),
        ("^(a)|b$", "", None),
        ("a^b", "", None),
        ("(^a|b)", "", None),
        ("a{65}", "", None),
        ("(", "", None),
        ("a" * 129, "", None),
    ],
)
def test_pattern_is_enforced_if_it_is_plain_and_closed(
    pattern: str, mark: str, expression: str | None
) -> None:
    assert pattern_limit({"pattern": pattern}, mark) == expression


def test_long_texts_are_not_counted() -> None:
    assert length_limit({"minLength": 64}) == "(?s:.){64,}"
    assert length_limit({"minLength": 65, "maxLength": 4096}) is None
    assert length_limit({"maxLength": 65, "minLength": 1}) == "(?s:.){1,}"
