"""The law of arguments: what a tool's schema takes can be written under the grammar, and is read as what it was."""

import json
import os
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from pensieve.dialects.answer import AnswerForm
from pensieve.dialects.dialect import Dialect, ToolCall, ToolSpec
from pensieve.dialects.grammar import Wanted
from pensieve.dialects.schemas import held_schema
from pensieve.dialects.slots import slots_of
from pensieve.dialects.validity import admits
from pensieve.dialects.writing import written_calls
from tests.dialects.cases import DIALECTS
from tests.dialects.pairs import Pair, pairs
from tests.dialects.test_grammar import MARKS, matcher, tokens_of
from tests.reply.test_reading import filled, meaning, read

SEAM = "\ue000"
MARK = re.compile("|".join(map(re.escape, MARKS)))
EXAMPLES = int(os.environ.get("PENSIEVE_LAW_EXAMPLES", "100"))


def marks_in_texts(dialect: Dialect) -> list[str]:
    """What no text of a call may hold: the marks that end a text which nothing escapes."""
    form = dialect.calls.parameters
    if form is None or form.quote == '"':
        return []
    return [form.quote or form.after_value.strip()]


def spelled_out(text: str) -> str:
    """A text in which no mark is a token of its own: a seam is in each."""
    return MARK.sub(lambda found: found[0][0] + SEAM + found[0][1:], text)


def texts_of(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for one in value for text in texts_of(one)]
        case dict():
            return [text for one in value.values() for text in texts_of(one)]
    return []


@pytest.mark.parametrize("name", DIALECTS)
@given(pairs(), st.booleans(), st.integers(1, 40))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_a_schema_takes_is_written_under_the_grammar_and_read_as_it_was(
    name: str, pair: Pair, has_tokens: bool, size: int
) -> None:
    schema, value = pair
    dialect = DIALECTS[name]
    assume(not any(mark in text for mark in marks_in_texts(dialect) for text in texts_of(value)))
    held = held_schema(schema)
    slots = {"quartz": slots_of(held)}
    spelled = filled(written_calls(dialect.calls, [ToolCall("quartz", value)], spelled_out, slots))
    text = spelled.replace(SEAM, "")
    note(text)

    wanted = Wanted([ToolSpec("quartz", "", held)], least=1, most=1)
    at = matcher(dialect, wanted, has_tokens)
    tokens = [token for part in spelled.split(SEAM) for token in tokens_of(part, has_tokens)]
    assert at.try_consume_tokens(tokens) == len(tokens)
    assert at.is_accepting()

    form = AnswerForm(dialect, {"quartz": schema}, has_text=False)
    expected = json.dumps([("quartz", value)])
    assert json.dumps(meaning(read(form, [text]))) == expected
    pieces = [text[place : place + size] for place in range(0, len(text), size)]
    assert json.dumps(meaning(read(form, pieces))) == expected


@given(pairs())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_drawn_schemas_take_their_values_before_and_after_they_are_held_to(pair: Pair) -> None:
    schema, value = pair
    assume("oneOf" not in str(schema))  # where several hold, no value is taken; we take any
    assert jsonschema.Draft202012Validator(schema).is_valid(value)
    held = held_schema(schema)
    assert jsonschema.Draft202012Validator(held).is_valid(value)
    assert admits(held, value, held)
