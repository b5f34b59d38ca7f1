"""The marks around a model's thoughts, found in what its chat template writes.

A turn with a thought is rendered, and what stands around the thought are its marks. Where the template passes thoughts over, the
end of the generation prompt may be a mark, and at last the vocabulary and the template's text are searched for a pair that
names thinking.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pensieve.dialects.dialect import ThinkingForm, Variables
from pensieve.dialects.probe import ANSWER, ASKED, CLOSED, Message, Probe, common_length

# A thought under each of the names that templates read it by, in the order of how many do.
_THOUGHTS = {"reasoning_content": "zebra", "reasoning": "violin", "thinking": "amber"}
_ANSWERED: Message = {"role": "assistant", "content": ANSWER, **_THOUGHTS}
# As Mistral's templates have it: no field, but a block of the content.
_IN_BLOCKS: Message = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": _THOUGHTS["reasoning_content"]},
        {"type": "text", "text": ANSWER},
    ],
}
# Switches without which some templates write no thought.
_SWITCHES = ("enable_thinking", "thinking", "reasoning")
_NAMED = re.compile(
    r"[<\[◁][^<>\[\]◁▷\s/]*(?:think|thought|reason)[^<>\[\]◁▷\s]*[>\]▷]", re.IGNORECASE
)
# How the closing mark is made of the opening one.
_PARTNERS = (
    (r"<\|(.*)begin(.*)\|>", r"<|\1end\2|>"),
    (r"<\|(.*)start(.*)\|>", r"<|\1end\2|>"),
    (r"<\|(.*)START(.*)\|>", r"<|\1END\2|>"),
    (r"<\|([^|]+)>.*", r"<\1|>"),
    (r"([<\[◁]\|?)(.*)", r"\1/\2"),
)


@dataclass(frozen=True, slots=True)
class _Written:
    """What the template writes before and after a thought, and the field that it read it from."""

    before: str
    after: str
    field: str
    variables: Variables


def thinking_marks(
    probe: Probe, template: str, declared: ThinkingForm | None
) -> ThinkingForm | None:
    """Return the marks of thoughts; None where there is no sign of any. declared: those that the family is known by."""
    written = _written(probe)
    form = declared or (written and _form_around(probe, written)) or _at_prompts_end(probe)
    form = form or _named(probe, template)
    if form is None:
        return None
    return replace(form, message_field=written.field) if written and written.field else form


def _written(probe: Probe) -> _Written | None:
    switched: Variables = {name: True for name in _SWITCHES if name in probe.names}
    for variables in ({}, switched) if switched else ({},):
        text = probe.text([ASKED, _ANSWERED], variables, CLOSED) or ""
        for field, thought in _THOUGHTS.items():
            if thought in text:
                before, _, after = text.partition(thought)
                return _Written(before, after, field, variables)
    text = probe.text([ASKED, _IN_BLOCKS], CLOSED) or ""
    before, thought, after = text.partition(_THOUGHTS["reasoning_content"])
    # A template that writes the blocks themselves writes their names too.
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
    """What stands between the beginning of an answer and the thought; its last mark where the prompt begins with that."""
    prompt = probe.text([ASKED], written.variables) or ""
    begun = common_length(prompt, written.before)
    whole = written.before[begun:].strip()
    is_mark = probe.mark_at_start(whole) or probe.mark_at_end(whole)
    if is_mark and "\n" not in whole:
        return whole
    return probe.mark_at_end(written.before.rstrip())


def _at_prompts_end(probe: Probe) -> ThinkingForm | None:
    """The prompt of an answer ends in a mark that earlier answers do not begin with."""
    prompt = probe.text([ASKED]) or ""
    answered = probe.text([ASKED, {"role": "assistant", "content": ANSWER}, ASKED], CLOSED) or ""
    begun = common_length(prompt, answered)
    opening = probe.mark_at_start(prompt[begun:].strip())
    known = opening and next(_closings(opening, probe.controls, ""), "")
    return ThinkingForm(opening, known) if known else None


def text_opening(probe: Probe) -> str:
    """Return the mark between the beginning of an answer and its text, as `<|START_RESPONSE|>`; empty where there is none."""
    prompt = probe.text([ASKED]) or ""
    answered = probe.text([ASKED, {"role": "assistant", "content": ANSWER}], CLOSED) or ""
    before = answered.partition(ANSWER)[0]
    if not prompt or not before.startswith(prompt):
        return ""
    return before.removeprefix(prompt).strip()


def _named(probe: Probe, template: str) -> ThinkingForm | None:
    """A pair of marks that is called by what it is for; the usual one where half of it is there."""
    texts = " ".join(sorted(probe.controls, key=len))
    for opening in dict.fromkeys(_NAMED.findall(f"{texts} {template}")):
        if closing := next(_closings(opening, probe.controls, template), ""):
            return ThinkingForm(opening, closing)
    usual = ThinkingForm()
    return usual if usual.opening in probe.controls or usual.opening in template else None


def _closings(opening: str, controls: Collection[str], template: str) -> Iterator[str]:
    """The marks that may close what `opening` opens, of those that the vocabulary or the template has."""
    for pattern, form in _PARTNERS:
        closing, count = re.subn(rf"\A{pattern}\Z", form, opening)
        if count and (closing in controls or closing in template):
            yield closing
