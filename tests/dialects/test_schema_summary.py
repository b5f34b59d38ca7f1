"""Summarize large tool sets."""

import pytest

from pensieve.dialects.dialect import ToolSpec
from pensieve.dialects.schema_summary import chars_of, summarized


@pytest.mark.parametrize(
    ("description", "left"),
    [
        ("Reads a file. Then much more.", "Reads a file."),
        ("Reads v1.2 of it! And more", "Reads v1.2 of it!"),
        ("A heading\n\nand more", "A heading"),
        ("no end", "no end"),
        ("", ""),
        ("x" * 160, "x" * 160),
        ("x" * 161, "x" * 159 + "…"),
    ],
)
def test_summary_of_a_description_is_its_first_sentence(description: str, left: str) -> None:
    assert summarized(ToolSpec("t", description, {})).description == left


def test_summary_of_a_schema_drops_only_long_descriptions() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **dict.fromkeys(("$id", "$comment", "title"), "x"),
        "type": "object",
        "properties": {
            "description": {"type": "string", "description": "What it is."},
            "title": {"type": "array", "items": {"type": "object", "description": "x" * 99}},
            "mode": {"enum": ["a", "b"], "default": "a", "description": "y" * 61},
            "either": {"anyOf": [{"description": "y" * 61, "type": "null"}, True]},
            "values": {"enum": [{"title": "x"}], "const": {"title": "x"}, "description": "z" * 60},
        },
        "required": ["description"],
        "additionalProperties": False,
    }
    assert summarized(ToolSpec("t", "", schema)).schema == {
        "type": "object",
        "properties": {
            "description": {"type": "string", "description": "What it is."},
            "title": {"type": "array", "items": {"type": "object"}},
            "mode": {"enum": ["a", "b"], "default": "a"},
            "either": {"anyOf": [{"type": "null"}, True]},
            "values": {"enum": [{"title": "x"}], "const": {"title": "x"}, "description": "z" * 60},
        },
        "required": ["description"],
        "additionalProperties": False,
    }


def test_length_of_a_tool_is_that_of_its_schema_and_description() -> None:
    assert chars_of({"a": 1}, "abc") == len("{'a': 1}") + 3
