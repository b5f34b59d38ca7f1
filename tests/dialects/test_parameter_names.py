"""Names of parameters in forms that do not quote them."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pensieve.dialects.dialect import ParameterForm
from pensieve.dialects.families import glm, lfm2
from pensieve.dialects.parameter_names import name_pattern, read_name, written_name

FORMS = [form for one in (glm, lfm2) if (form := one.DIALECT.calls.parameters) is not None]
either_form = pytest.mark.parametrize("form", FORMS, ids=["in tags", "bare"])
names = st.text(st.characters() | st.sampled_from(" \n<>\"'(){},:=%\x00\x1f\x7f\u2028\u2029\xa0"))


@either_form
@given(names)
@example("")
@example("%41")
@example("a\nb")
def test_any_name_survives_escaping_and_parsing(form: ParameterForm, name: str) -> None:
    written = written_name(form, name)
    assert re.fullmatch(name_pattern(form), written)
    assert read_name(form, written) == name


@either_form
@pytest.mark.parametrize("written", ["a", "%zz", "%e", "a%61", "%C3", "50%", "x%2"])
def test_text_that_escapes_no_name_is_read_as_itself(form: ParameterForm, written: str) -> None:
    assert read_name(form, written) == written


@pytest.mark.parametrize(("name", "in_tags", "bare"), [
    ("file path", "file path", "file%20path"),
    (" x ", "%20x%20", "%20x%20"),
    ("a=b", "a=b", "a%3Db"),
    ("a/b", "a/b", "a/b"),
    ("a<b>%", "a%3Cb%3E%25", "a%3Cb%3E%25"),
    ("", "%", "%"),
])  # fmt: skip
def test_only_unsupported_characters_are_escaped(name: str, in_tags: str, bare: str) -> None:
    assert [written_name(form, name) for form in FORMS] == [in_tags, bare]
