"""What a model is told of a schema, and of texts that its form cannot hold."""

import pytest

from pensieve.dialects.families import gemma, glm, lfm2
from pensieve.dialects.tool_presentation import presented_schema, told_texts
from tests.dialects.cases import DIALECTS

INNER = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


def test_references_are_put_in_place_with_what_stands_beside_them() -> None:
    schema = {
        "type": "object",
        "properties": {"f": {"$ref": "#/$defs/F", "description": "d"}},
        "$defs": {"F": INNER},
    }
    assert presented_schema(schema, None) == {
        "type": "object",
        "properties": {"f": {**INNER, "description": "d"}},
    }


def test_a_schema_that_is_a_reference_is_told_as_what_it_refers_to() -> None:
    assert presented_schema({"$ref": "#/$defs/F", "$defs": {"F": INNER}}, None) == INNER


def test_a_schema_that_holds_itself_keeps_its_definitions() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
    schema = {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": node}}
    assert presented_schema(schema, None) == {
        "type": "object",
        "properties": {"n": node},
        "$defs": {"N": node},
    }


def test_references_that_double_each_other_stay_within_bounds() -> None:
    parts = {
        f"d{at}": {"properties": {key: {"$ref": f"#/$defs/d{at + 1}"} for key in "ab"}}
        for at in range(40)
    }
    told = presented_schema({"$ref": "#/$defs/d0", "$defs": parts}, None)
    assert len(str(told)) < 500_000


def test_a_schema_or_null_is_told_as_the_schema() -> None:
    schema = {"properties": {"f": {"anyOf": [INNER, {"type": "null"}], "default": None}}}
    assert presented_schema(schema, None) == {
        "properties": {"f": {**INNER, "default": None, "nullable": True}}
    }


def test_parameters_are_told_under_the_names_that_the_model_writes() -> None:
    schema = {
        "type": "object",
        "properties": {"a=b": {"type": "object", "properties": {"c:d": {}}}, "file path": {}},
        "required": ["a=b"],
    }
    names = {
        form.name: list(presented_schema(schema, form.calls.parameters)["properties"])  # pyright: ignore[reportArgumentType]
        for form in (glm.DIALECT, lfm2.DIALECT, gemma.GEMMA_4)
    }
    assert names == {
        "glm": ["a=b", "file path"],
        "lfm2": ["a%3Db", "file%20path"],
        "gemma4": ["a%3Db", "file%20path"],
    }
    told = str(presented_schema(schema, gemma.GEMMA_4.calls.parameters))
    assert "'c%3Ad'" in told
    assert "'required': ['a%3Db']" in told
    assert "'c:d'" in str(presented_schema(schema, lfm2.DIALECT.calls.parameters))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hermes", ""),
        ("lfm2", ""),
        (
            "qwen-coder",
            "In a tool call, a text that contains </parameter> is written as a JSON string, "
            "with \\u003c for each <.",
        ),
        ("gemma4", 'In a tool call, a text that contains <|"|> is written as a JSON string.'),
    ],
)
def test_a_form_with_an_end_mark_tells_how_a_text_contains_it(name: str, told: str) -> None:
    assert told_texts(DIALECTS[name].calls.parameters) == told
