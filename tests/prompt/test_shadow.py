"""Texts that an answer may copy: tool results without line numbers, arguments as plain text."""

import difflib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.dialect import JSON_CALL, CallForm
from pensieve.dialects.families import gemma, lfm2, qwen_coder
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.shadow import (
    MIN_CHARS,
    ShadowTokens,
    escaped,
    in_diff,
    shadow_texts,
    without_line_numbers,
)
from tests.support.fakes import ByteTokenizer

TAGGED = qwen_coder.DIALECT.calls
FILE = (
    'def greet(name: str) -> None:\n    print(f"hello {name}")\n\n\ngreet("you, and all others")\n'
)
OTHER = FILE.replace("greet", "farewell")
texts = st.text(st.sampled_from('ab1 \t\n"\\→'), max_size=40)


def numbered(text: str, mark: str = "→") -> str:
    return "\n".join(f"{at:6}{mark}{line}" for at, line in enumerate(text.split("\n"), 1))


def use(name: str, **arguments: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": name, "name": name, "input": arguments}
    return {"role": "assistant", "content": [block]}


def result(name: str, content: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": name, "content": content}
    return {"role": "user", "content": [block]}


def shadows(*messages: dict[str, Any], form: CallForm = JSON_CALL, **limit: int) -> tuple[str, ...]:
    conversation = decode(Conversation, {"model": "m", "messages": messages})
    return shadow_texts(conversation, form, **limit)


@pytest.mark.parametrize("mark", ["→", "\t"])
def test_numbered_file_is_copied_without_its_numbers(mark: str) -> None:
    read = result("Read", numbered(FILE, mark))
    assert shadows(read, form=TAGGED) == (in_diff(FILE), FILE)
    assert set(shadows(read)) == {FILE, escaped(FILE), in_diff(FILE)}


@given(text=texts, mark=st.sampled_from(["→", "\t"]))
def test_line_numbers_are_removed_and_nothing_else(text: str, mark: str) -> None:
    assert without_line_numbers(numbered(text, mark)) == text


def test_text_with_few_numbered_lines_stays() -> None:
    log = "starting\n  12→ twelve\ndone\n"
    assert without_line_numbers(log) == log


def test_lines_without_a_number_stay_in_a_numbered_file() -> None:
    text = numbered("a\nb\n\nc") + "\n<system-reminder>Be brief.</system-reminder>"
    assert without_line_numbers(text) == "a\nb\n\nc\n<system-reminder>Be brief.</system-reminder>"


@given(text=texts)
def test_escaped_text_is_the_inside_of_a_json_string(text: str) -> None:
    assert json.loads(f'"{escaped(text)}"') == text


def test_unchanged_lines_of_a_diff_are_those_of_the_file_in_it() -> None:
    lines = FILE.split("\n")
    diff = list(difflib.unified_diff(lines, [*lines, "end"], n=len(lines), lineterm=""))
    assert "\n".join(diff[3:-1]) == in_diff(FILE)


def test_texts_of_diffs_displace_no_other_text() -> None:
    reads = [result("Read", numbered(FILE)), result("Read", numbered(OTHER))]
    limit = len(FILE) + len(OTHER) + 10
    expected = (in_diff(OTHER)[:10], FILE, OTHER)
    assert shadows(*reads, form=TAGGED, max_chars=limit) == expected


def test_plain_results_are_copied_only_escaped() -> None:
    output = result("Bash", [{"type": "text", "text": FILE}])
    assert shadows(output) == (escaped(FILE),)
    assert shadows(output, form=TAGGED) == ()


@pytest.mark.parametrize(
    ("form", "is_escaped"),
    [
        (JSON_CALL, True),
        (lfm2.DIALECT.calls, True),
        (TAGGED, False),
        (gemma.GEMMA_4.calls, False),
    ],
)
def test_texts_are_escaped_for_dialects_that_escape_arguments(
    form: CallForm, *, is_escaped: bool
) -> None:
    assert (shadows(result("Bash", FILE), form=form) == (escaped(FILE),)) is is_escaped


def test_long_arguments_are_copied_as_plain_text() -> None:
    edit = use("Edit", path="a.py", old_string=FILE, edits=[{"new": [OTHER]}], count=3)
    assert set(shadows(edit)) == {FILE, OTHER}
    assert shadows(edit, form=TAGGED) == ()


def test_argument_that_escaping_does_not_change_is_in_the_prompt_already() -> None:
    assert shadows(use("Bash", command="x" * MIN_CHARS)) == ()
    assert shadows(use("Bash", command='"' * MIN_CHARS)) == ('"' * MIN_CHARS,)


def test_short_texts_are_omitted() -> None:
    short, long = "\n" * (MIN_CHARS // 2 - 1), "\n" * MIN_CHARS
    assert shadows(use("Write", content=short), result("Bash", short)) == ()
    assert shadows(use("Write", content=long)) == (long,)


def test_newest_texts_come_last_and_each_once() -> None:
    messages = [use("Write", content=FILE), use("Write", content=OTHER)]
    assert shadows(*messages) == (FILE, OTHER)
    assert shadows(*messages, messages[0]) == (OTHER, FILE)


def test_newest_texts_fit_the_limit_and_the_last_is_trimmed() -> None:
    messages = [use("Write", content=FILE), use("Write", content=OTHER)]
    limit = len(OTHER) + 10
    assert shadows(*messages, max_chars=limit) == (FILE[:10], OTHER)
    assert shadows(*messages, max_chars=len(OTHER)) == (OTHER,)
    assert shadows(*messages, max_chars=0) == ()


IMAGE = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}


def test_thoughts_texts_and_images_are_not_copied() -> None:
    thought = {"type": "thinking", "thinking": FILE, "signature": ""}
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": FILE}]}
    assert shadows({"role": "user", "content": FILE}, answer) == ()
    assert shadows(result("Read", [IMAGE])) == ()


def test_tokens_of_a_shadow_are_those_of_its_text_and_are_found_once() -> None:
    tokenizer = CountingTokenizer()
    tokens = ShadowTokens(tokenizer, TAGGED)
    messages = [result("Read", numbered(FILE)), result("Other", numbered(OTHER))]
    conversation = decode(Conversation, {"model": "m", "messages": messages})
    texts = (in_diff(FILE), in_diff(OTHER), FILE, OTHER)
    expected = tuple(tuple(tokenizer.encode(text)) for text in texts)
    tokenizer.encoded.clear()
    assert tokens.of(conversation) == expected
    assert tokens.of(conversation) == expected
    assert sorted(tokenizer.encoded) == sorted(texts)


class CountingTokenizer(ByteTokenizer):
    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode(self, rendered: str) -> list[int]:
        self.encoded.append(rendered)
        return super().encode(rendered)


def test_prompt_has_the_hints_of_its_tool_results_if_there_will_be_an_answer() -> None:
    tokenizer = ByteTokenizer()
    renderer = PromptRenderer(tokenizer)
    messages = [
        {"role": "user", "content": "go"},
        use("Read", path="a"),
        result("Read", numbered(FILE)),
    ]
    call = decode(Conversation, {"model": "m", "messages": messages})
    hints = renderer.render(call, answer_tokens=10).hints
    assert FILE in [tokenizer.decode(list(hint)) for hint in hints]
    assert renderer.render(call).hints == ()


def test_no_text_is_tokenized_for_hints_that_the_engine_does_not_use() -> None:
    tokenizer = CountingTokenizer()
    renderer = PromptRenderer(tokenizer)
    messages = [
        {"role": "user", "content": "go"},
        use("Read", path="a"),
        result("Read", numbered(FILE)),
    ]
    call = decode(Conversation, {"model": "m", "messages": messages})
    assert renderer.render(call, answer_tokens=10, has_hints=False).hints == ()
    assert FILE not in tokenizer.encoded
    assert renderer.render(call, answer_tokens=10).hints
    assert FILE in tokenizer.encoded
