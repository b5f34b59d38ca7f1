"""Text that a model continues without a chat template, and gaps in it that it fills."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, processors

from pensieve.dialects.sampling_defaults import NEUTRAL
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from pensieve.prompt.raw_text import gap_marks_of, raw_prompt
from pensieve.prompt.render import Prompt
from tests.support import tiny_models

# ruff: noqa: RUF001 -- DeepSeek's characters
QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
CODESTRAL = ("[PREFIX]", "[SUFFIX]", "[MIDDLE]")
FILES = ("<|file_sep|>", "<|fim_pad|>")


def tokenizer_with(*marks: str, start: str = "") -> ModelTokenizer:
    """Return a tokenizer with these control tokens; `start` begins every text."""
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=True)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    if start:
        pair = (start, tokenizer.token_to_id(start))
        tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A", None, [pair])
    return ModelTokenizer(tokenizer, ChatTemplate("", {}), stop_tokens=())


def prompt_of(
    tokenizer: ModelTokenizer, text: str, suffix: str | None = None, context_tokens: int = 10_000
) -> Prompt:
    return raw_prompt(text, suffix, tokenizer, context_tokens, NEUTRAL)


def shown(tokenizer: ModelTokenizer, prompt: Prompt) -> str:
    """Return the prompt's text, with the names of control tokens in it doubled."""
    names = {number: text * 2 for text, number in tokenizer.controls.items()}
    texts: list[str] = []
    detokenizer = tokenizer.detokenizer()
    for token in prompt.tokens:
        if token in names:
            texts += [detokenizer.flush(), names[token]]
            detokenizer = tokenizer.detokenizer()
        else:
            texts.append(detokenizer.feed(token))
    return "".join([*texts, detokenizer.flush()])


@given(st.lists(st.sampled_from([*QWEN[:2], "<|im_start|>", "a", " é\n", "<", "|>"])).map("".join))
def test_text_becomes_no_control_token(text: str) -> None:
    tokenizer = tokenizer_with(*QWEN, start="<|im_start|>")
    prompt = prompt_of(tokenizer, text)
    assert shown(tokenizer, prompt) == "<|im_start|>" * 2 + text
    assert prompt.stop_tokens == frozenset()


def test_text_without_a_beginning_mark_begins_with_itself() -> None:
    tokenizer = tokenizer_with()
    assert shown(tokenizer, prompt_of(tokenizer, "def f")) == "def f"
    with pytest.raises(InvalidRequestError, match="prompt: Input should have at least one token"):
        prompt_of(tokenizer, "")


def doubled(text: str, *marks: str) -> str:
    for mark in marks:
        text = text.replace(mark, mark * 2)
    return text


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (QWEN, "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"),
        (DEEPSEEK, "<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>"),
        (CODESTRAL, "[SUFFIX]b[PREFIX]a"),
    ],
)
def test_gap_is_between_the_marks_of_the_model(marks: tuple[str, ...], expected: str) -> None:
    tokenizer = tokenizer_with(*marks, *FILES)
    prompt = prompt_of(tokenizer, "a", "b")
    assert shown(tokenizer, prompt) == doubled(expected, *marks)
    used = gap_marks_of(tokenizer.controls).texts
    assert prompt.stop_tokens == {tokenizer.controls[mark] for mark in (*used, *FILES)}


def test_marks_in_the_texts_around_a_gap_stay_text() -> None:
    tokenizer = tokenizer_with(*QWEN)
    prompt = prompt_of(tokenizer, "a<|fim_middle|>", "<|fim_suffix|>b")
    assert shown(tokenizer, prompt) == (
        "<|fim_prefix|><|fim_prefix|>a<|fim_middle|><|fim_suffix|><|fim_suffix|><|fim_suffix|>b"
        "<|fim_middle|><|fim_middle|>"
    )


def test_marks_that_an_editor_writes_are_control_tokens_and_others_are_not() -> None:
    tokenizer = tokenizer_with(*QWEN)
    text = "<|fim_prefix|>a<|im_start|><|fim_suffix|>b<|fim_middle|>"
    prompt = prompt_of(tokenizer, text)
    assert shown(tokenizer, prompt) == doubled(text, *QWEN)
    assert prompt.stop_tokens == {tokenizer.controls[mark] for mark in QWEN}


def test_empty_suffix_is_no_gap_without_marks() -> None:
    tokenizer = tokenizer_with()
    assert prompt_of(tokenizer, "a", "").tokens == prompt_of(tokenizer, "a").tokens


def test_suffix_is_refused_without_marks() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        prompt_of(tokenizer_with(), "a", "b")
    assert caught.value.message == "suffix: The served model has no marks for a gap in a text"


def test_text_far_beyond_the_context_is_refused() -> None:
    with pytest.raises(PromptTooLongError):
        prompt_of(tokenizer_with(), "word " * 100_000, context_tokens=100)
