"""What a chat template can be told about thinking: a switch, words or numbers for how hard, each tried by rendering.

A word that the template refuses, or that changes nothing, is none of its words.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pensieve.dialects.dialect import ThinkingForm, Variables
from pensieve.dialects.probe import Probe

# Weakest first: the words of templates, and those of Anthropic's clients (2026-11).
SCALE = ("minimal", "low", "medium", "high", "xhigh", "max")
# Of those that mean the same to a template, the first is taken.
_PREFERRED = ("low", "medium", "high", "xhigh", "max", "minimal")
# Where a template writes down any word, these are what models were taught (gpt-oss).
_TAUGHT = ("low", "medium", "high")
_OFF = ("none", "no_think", "off", "disabled")
_NONSENSE = "zebra"
# Tokens, where a template takes a number: as Seed-OSS was taught them.
_BUDGETS: Mapping[str, object] = {"low": 1024, "medium": 4096, "high": 16384}

_ABOUT_THINKING = re.compile(r"think|thought|reason|effort")
_HOW_HARD = re.compile(r"effort|strength|level")
_LEVEL_SWITCH = re.compile(rf"({'|'.join(SCALE)})_(?:effort|thinking|reasoning)")
_PLAIN_SWITCH = re.compile(r"(enable_|use_)?(thinking|reasoning|think)(_mode|_option|_enabled)?")
_PAIRS: tuple[tuple[object, object], ...] = (
    (True, False),
    ("enabled", "disabled"),
    ("on", "off"),
    ("thinking", "chat"),
)
# A template may read many names that sound like it, most of them its own.
_MOST_NAMES = 8
_RANKS = {"none": 0, "possible": 1, "begun": 2}


def with_abilities(form: ThinkingForm, probe: Probe) -> ThinkingForm:
    """Return `form` with what the template takes."""
    names = sorted(filter(_ABOUT_THINKING.search, probe.names), key=_likelihood)[:_MOST_NAMES]
    form = _with_switch(form, probe, names)
    form = _with_efforts(form, probe, [name for name in names if name not in form.on])
    prompt = probe.prompt() or ""
    return replace(form, is_begun=form.state_after(prompt) == "begun")


def _likelihood(name: str) -> tuple[bool, bool, int, str]:
    is_known = bool(_PLAIN_SWITCH.fullmatch(name) or _HOW_HARD.search(name) or "budget" in name)
    return not is_known, not name.startswith("enable"), len(name), name


# The switch.


def _with_switch(form: ThinkingForm, probe: Probe, names: list[str]) -> ThinkingForm:
    for name in names:
        if _HOW_HARD.search(name) or "budget" in name:
            continue
        for one, other in _PAIRS:
            if found := _switch(form, probe, {name: one}, {name: other}):
                on, off = found
                return replace(form, on=on, off=off)
    return form


def _switch(
    form: ThinkingForm, probe: Probe, one: Variables, other: Variables
) -> tuple[Variables, Variables] | None:
    """Return which of the two turns thinking on, and which off; None where they do neither."""
    first, second = probe.prompt(one), probe.prompt(other)
    if first is None or second is None or first == second:
        return None
    (name, value), *_ = one.items()
    if first.replace(str(value), str(other[name])) == second:  # it is only written down
        return None
    if _PLAIN_SWITCH.fullmatch(name):
        return one, other
    gain = _RANKS[form.state_after(first)] - _RANKS[form.state_after(second)]
    if gain == 0:
        return None
    return (one, other) if gain > 0 else (other, one)


# How hard.


def _with_efforts(form: ThinkingForm, probe: Probe, names: list[str]) -> ThinkingForm:
    for name in names:
        if "budget" in name:
            form = _with_budget(form, probe, name)
        elif level := _LEVEL_SWITCH.fullmatch(name):
            form = _with_level_switch(form, probe, name, level[1])
        else:
            form = _with_words(form, probe, name)
        if form.efforts:
            return form
    return form


def _with_words(form: ThinkingForm, probe: Probe, name: str) -> ThinkingForm:
    taken = _words(form, probe, name)
    efforts = {word: {name: word} for word in SCALE if word in taken}
    stopping = next((word for word in _OFF if word in taken), None)
    if stopping is not None and not form.off:
        form = replace(form, off={name: stopping})
    if len(efforts) == 1 and not form.on and form.off:
        return replace(form, on=next(iter(efforts.values())))
    unnudged = probe.prompt(form.on)
    if efforts and "medium" not in efforts and unnudged not in taken.values():
        efforts["medium"] = {}
    return replace(form, efforts=_ordered(efforts)) if len(efforts) > 1 else form


def _words(form: ThinkingForm, probe: Probe, name: str) -> Mapping[str, str]:
    """Return the words that change something, with what the prompt becomes of each."""
    anything = probe.prompt(form.on, {name: _NONSENSE})
    if anything and _NONSENSE in anything:
        taught = _TAUGHT if _HOW_HARD.search(name) else ()
        return {word: anything.replace(_NONSENSE, word) for word in taught}
    found: dict[str, str] = {}
    for word in (*_PREFERRED, *_OFF):
        prompt = probe.prompt(form.on, {name: word})
        if prompt is not None and prompt != anything and prompt not in found.values():
            found[word] = prompt
    return found if len(found) > 1 or anything is not None else {}


def _with_level_switch(form: ThinkingForm, probe: Probe, name: str, level: str) -> ThinkingForm:
    """Return `form` with one effort that is a switch of its own, as Nemotron's `low_effort`."""
    on = probe.prompt(form.on, {name: True})
    if on is None or on == probe.prompt(form.on, {name: False}):
        return form
    other = "medium" if level != "medium" else "high"
    return replace(form, efforts=_ordered({level: {name: True}, other: {}}))


def _with_budget(form: ThinkingForm, probe: Probe, name: str) -> ThinkingForm:
    prompts = {level: probe.prompt(form.on, {name: tokens}) for level, tokens in _BUDGETS.items()}
    if None in prompts.values() or len(set(prompts.values())) < len(prompts):
        return form
    none = probe.prompt(form.on, {name: 0})
    if none is not None and not form.off and form.state_after(none) == "none":
        form = replace(form, off={name: 0})
    return replace(form, efforts={level: {name: tokens} for level, tokens in _BUDGETS.items()})


def _ordered(efforts: Mapping[str, Variables]) -> Mapping[str, Variables]:
    return {word: efforts[word] for word in SCALE if word in efforts}


# What clients ask for, in the template's words.


def nearest_effort(form: ThinkingForm, wanted: str | None) -> str | None:
    """Return the template's word for an effort: that very one, else the next weaker, else the weakest.

    Where nothing is wanted it is "medium", or the one below the strongest: an agent asks many small questions, and templates left
    to themselves take their strongest (Qwen3.8-27B: 5 s at low, 62 s at xhigh for the same answer, 2026-08).
    """
    words = list(form.efforts)
    if not words:
        return None
    if wanted in words:
        return wanted
    if wanted not in SCALE:
        return "medium" if "medium" in words else words[max(len(words) - 2, 0)]
    weaker = list(_up_to(words, wanted))
    return weaker[-1] if weaker else words[0]


def _up_to(words: list[str], limit: str) -> Iterator[str]:
    return (word for word in words if SCALE.index(word) <= SCALE.index(limit))
