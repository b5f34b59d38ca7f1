"""Prompts without a chat template: text that the model continues, or a gap in it that it fills.

No client text becomes a control token, but for a model's own marks around such a gap: editors write
them into the text.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.families import plain
from pensieve.dialects.sampling_defaults import SamplingDefaults
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.prompt.chat_tokenizer import ChatTokenizer
from pensieve.prompt.constraints import AnswerConstraints
from pensieve.prompt.render import Prompt, length_beyond
from pensieve.prompt.template.renderer import RenderedPrompt


@dataclass(frozen=True, slots=True)
class GapMarks:
    """What a model was trained to read around the text before and after a gap."""

    before: str
    after: str
    gap: str = ""
    is_after_first: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.before, self.after, self.gap)))


# ruff: noqa: RUF001 -- DeepSeek's characters
_MARKS = (
    GapMarks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    GapMarks("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    GapMarks("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    GapMarks("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
    GapMarks("[PREFIX]", "[SUFFIX]", is_after_first=True),  # Codestral
)
# Control tokens with which models go on to another file after the gap.
_FILE_MARKS = ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>", "<file_sep>")


def gap_marks_of(controls: Collection[str]) -> GapMarks | None:
    return next((marks for marks in _MARKS if all(text in controls for text in marks.texts)), None)


def raw_prompt(
    text: str,
    suffix: str | None,
    tokenizer: ChatTokenizer,
    context_tokens: int,
    sampling: SamplingDefaults,
) -> Prompt:
    """Return the prompt that ends where the answer begins: after `text`, or before `suffix`.

    Raises `InvalidRequestError`, also for a suffix if the model has no marks for it, and
    `PromptTooLongError` without tokenizing for a text far beyond the context.
    """
    marks = gap_marks_of(tokenizer.controls)
    rendered = _rendered(text, suffix, tokenizer, marks)
    length = length_beyond(rendered, context_tokens, lambda part: len(tokenizer.encode(part)))
    if length is not None:
        raise PromptTooLongError(length, context_tokens)
    tokens = (*tokenizer.text_start, *tokenizer.encode(rendered))
    if not tokens:
        raise InvalidRequestError("prompt: Input should have at least one token")
    is_gap = marks is not None and any(mark in rendered for mark in marks.texts)
    ends = (*marks.texts, *_FILE_MARKS) if marks is not None and is_gap else ()
    return Prompt(
        RenderedPrompt(rendered, tokens, ()),
        original_tokens=len(tokens),
        constraints=AnswerConstraints(AnswerFormat(plain.DIALECT, may_think=False)),
        sampling=sampling,
        stop_tokens=frozenset(
            tokenizer.controls[mark] for mark in ends if mark in tokenizer.controls
        ),
    )


def _rendered(
    text: str, suffix: str | None, tokenizer: ChatTokenizer, marks: GapMarks | None
) -> str:
    # An empty one asks for nothing; with marks, it says that the text ends at the gap.
    if suffix is None or not (suffix or marks):
        return _with_marks(text, tokenizer, marks)
    if marks is None:
        raise InvalidRequestError("suffix: The served model has no marks for a gap in a text")
    before = marks.before + tokenizer.neutralize(text)
    after = marks.after + tokenizer.neutralize(suffix)
    return (after + before if marks.is_after_first else before + after) + marks.gap


def _with_marks(text: str, tokenizer: ChatTokenizer, marks: GapMarks | None) -> str:
    """Neutralize a text, but for the marks of a gap if it has all of them."""
    if marks is None or not all(mark in text for mark in marks.texts):
        return tokenizer.neutralize(text)
    pieces = re.split(f"({'|'.join(map(re.escape, marks.texts))})", text)
    return "".join(
        piece if at % 2 else tokenizer.neutralize(piece) for at, piece in enumerate(pieces)
    )
