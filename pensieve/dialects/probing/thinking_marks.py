"""Find the marks around a model's thoughts.

It renders a turn with a thought: the text around the thought is its marks. If the template ignores
thoughts, the generation prompt may end in a mark. If not, it searches the vocabulary and the
template for a pair of marks whose names contain "think", "thought" or "reason".
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pensieve.dialects.dialect import ThinkingForm, Variables
from pensieve.dialects.probing.probe import (
    ANSWER,
    CLOSED,
    QUESTION_TURN,
    Message,
    Probe,
    common_length,
)

# Message fields that templates read a thought from, the most common first.
_THOUGHTS = {"reasoning_content": "zebra", "reasoning": "violin", "thinking": "amber"}
_ANSWER_TURN: Message = {"role": "assistant", "content": ANSWER, **_THOUGHTS}
# Mistral's templates read a block of the content instead.
_IN_BLOCKS: Message = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": _THOUGHTS["reasoning_content"]},
        {"type": "text", "text": ANSWER},
    ],
}
# Some templates write thoughts only with one of these switched on.
_SWITCHES = ("enable_thinking", "thinking", "reasoning")
_NAMED = re.compile(
    r"[<\[◁][^<>\[\]◁▷\s/]{0,40}(?:think|thought|reason)[^<>\[\]◁▷\s]{0,40}[>\]▷]",
    re.IGNORECASE,
)
# Opening mark to closing mark.
_PARTNERS = (
    (r"<\|(.*)begin(.*)\|>", r"<|\1end\2|>"),
    (r"<\|(.*)start(.*)\|>", r"<|\1end\2|>"),
    (r"<\|(.*)START(.*)\|>", r"<|\1END\2|>"),
    (r"<\|([^|]+)>.*", r"<\1|>"),
    (r"([<\[◁]\|?)(.*)", r"\1/\2"),
)


@dataclass(frozen=True, slots=True)
class _Written:
    """Text before and after a rendered thought."""

    before: str
    after: str
    field: str  # of the message; empty for a block of the content
    variables: Variables


def thinking_marks(
    probe: Probe, template: str, declared: ThinkingForm | None
) -> ThinkingForm | None:
    """Return the marks; None if nothing shows any. `declared` marks of the family come first."""
    written = _written(probe)
    form = declared or (written and _form_around(probe, written)) or _at_prompts_end(probe)
    form = form or _named(probe, template)
    if form is None:
        return None
    return replace(form, message_field=written.field) if written and written.field else form


def _written(probe: Probe) -> _Written | None:
    switched: Variables = {name: True for name in _SWITCHES if name in probe.names}
    for variables in ({}, switched) if switched else ({},):
        text = probe.text([QUESTION_TURN, _ANSWER_TURN], variables, CLOSED) or ""
        for field, thought in _THOUGHTS.items():
            if thought in text:
                before, _, after = text.partition(thought)
                return _Written(before, after, field, variables)
    text = probe.text([QUESTION_TURN, _IN_BLOCKS], CLOSED) or ""
    before, thought, after = text.partition(_THOUGHTS["reasoning_content"])
    # A template that dumps the list of blocks writes their keys too.
    return _Written(before, after, "", {}) if thought and "'type'" not in text else None


def _form_around(probe: Probe, written: _Written) -> ThinkingForm | None:
    between, answer, _ = written.after.partition(ANSWER)
    closing = probe.mark_at_start(between.lstrip())
    opening = _opening(probe, written)
    if not (opening and closing and answer) or opening == closing:
        return None
    rest = between.partition(closing)[2]
    return ThinkingForm(opening, closing, after=rest if rest.strip() else "")


def _opening(probe: Probe, written: _Written) -> str:
    """Return the text from the end of the prompt to the thought; if the prompt has it, its mark."""
    prompt = probe.text([QUESTION_TURN], written.variables) or ""
    begun = common_length(prompt, written.before)
    whole = written.before[begun:].strip()
    is_mark = probe.mark_at_start(whole) or probe.mark_at_end(whole)
    if is_mark and "\n" not in whole:
        return whole
    return probe.mark_at_end(written.before.rstrip())


def _at_prompts_end(probe: Probe) -> ThinkingForm | None:
    """Find a mark at the end of the prompt that earlier answers do not begin with."""
    prompt = probe.text([QUESTION_TURN]) or ""
    answered = (
        probe.text([QUESTION_TURN, {"role": "assistant", "content": ANSWER}, QUESTION_TURN], CLOSED)
        or ""
    )
    begun = common_length(prompt, answered)
    opening = probe.mark_at_start(prompt[begun:].strip())
    closing = opening and next(_closings(opening, probe.controls, ""), "")
    return ThinkingForm(opening, closing) if closing else None


def text_opening(probe: Probe) -> str:
    """Return the mark before an answer's text (`<|START_RESPONSE|>`); empty if there is none."""
    prompt = probe.text([QUESTION_TURN]) or ""
    answered = probe.text([QUESTION_TURN, {"role": "assistant", "content": ANSWER}], CLOSED) or ""
    before = answered.partition(ANSWER)[0]
    if not prompt or not before.startswith(prompt):
        return ""
    return before.removeprefix(prompt).strip()


def _named(probe: Probe, template: str) -> ThinkingForm | None:
    """Find a pair of marks by name. For `<think>` alone the pair is assumed."""
    texts = " ".join(sorted(probe.controls, key=len))
    for opening in dict.fromkeys(_NAMED.findall(f"{texts} {template}")):
        if closing := next(_closings(opening, probe.controls, template), ""):
            return ThinkingForm(opening, closing)
    default = ThinkingForm()
    has_default = default.opening in probe.controls or default.opening in template
    return default if has_default else None


def _closings(opening: str, controls: Collection[str], template: str) -> Iterator[str]:
    """Yield the closing marks for `opening` that the vocabulary or the template contains."""
    for pattern, form in _PARTNERS:
        closing, count = re.subn(rf"\A{pattern}\Z", form, opening)
        if count and (closing in controls or closing in template):
            yield closing
