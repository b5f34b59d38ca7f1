"""Find the template variables that switch thinking on and off and set its effort.

It renders each candidate value. A value that the template refuses, or that changes nothing, is
not used.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from pensieve.dialects.dialect import ThinkingForm, Variables
from pensieve.dialects.probing.probe import Probe

# Efforts of templates and of Anthropic's clients, weakest first (2026-11).
SCALE = ("minimal", "low", "medium", "high", "xhigh", "max")
# If a template treats some alike, the first of them is used.
_PREFERRED = ("low", "medium", "high", "xhigh", "max", "minimal")
# If a template prints any value, these are the ones that models were trained with (gpt-oss).
_TRAINED = ("low", "medium", "high")
_OFF = ("none", "no_think", "off", "disabled")
_NONSENSE = "zebra"
# Tokens, for a template that takes a number: Seed-OSS was trained with these.
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
# Most of the names that match are variables of the template itself.
_MAX_NAMES = 8
_RANKS = {"none": 0, "possible": 1, "begun": 2}


def with_abilities(form: ThinkingForm, probe: Probe) -> ThinkingForm:
    """Return `form` with the variables that the template reads."""
    names = sorted(filter(_ABOUT_THINKING.search, probe.names), key=_likelihood)[:_MAX_NAMES]
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
    """Return which variables turn thinking on and which off; None if neither does."""
    first, second = probe.prompt(one), probe.prompt(other)
    if first is None or second is None or first == second:
        return None
    (name, value), *_ = one.items()
    if first.replace(str(value), str(other[name])) == second:  # the template only prints it
        return None
    if _PLAIN_SWITCH.fullmatch(name):
        return one, other
    gain = _RANKS[form.state_after(first)] - _RANKS[form.state_after(second)]
    if gain == 0:
        return None
    return (one, other) if gain > 0 else (other, one)


# The effort.


def _with_efforts(form: ThinkingForm, probe: Probe, names: list[str]) -> ThinkingForm:
    for name in names:
        if "budget" in name:
            form = _with_budget(form, probe, name)
        elif level := _LEVEL_SWITCH.fullmatch(name):
            form = _with_level_switch(form, probe, name, level[1])
        else:
            form = _with_values(form, probe, name)
        if form.efforts:
            return form
    return form


def _with_values(form: ThinkingForm, probe: Probe, name: str) -> ThinkingForm:
    accepted = _accepted_values(form, probe, name)
    efforts = {value: {name: value} for value in SCALE if value in accepted}
    stopping = next((value for value in _OFF if value in accepted), None)
    if stopping is not None and not form.off:
        form = replace(form, off={name: stopping})
    if len(efforts) == 1 and not form.on and form.off:
        return replace(form, on=next(iter(efforts.values())))
    unnudged = probe.prompt(form.on)
    if efforts and "medium" not in efforts and unnudged not in accepted.values():
        efforts["medium"] = {}
    return replace(form, efforts=_ordered(efforts)) if len(efforts) > 1 else form


def _accepted_values(form: ThinkingForm, probe: Probe, name: str) -> Mapping[str, str]:
    """Return the values that change the prompt, with the prompt for each."""
    anything = probe.prompt(form.on, {name: _NONSENSE})
    if anything and _NONSENSE in anything:
        trained = _TRAINED if _HOW_HARD.search(name) else ()
        return {value: anything.replace(_NONSENSE, value) for value in trained}
    found: dict[str, str] = {}
    for value in (*_PREFERRED, *_OFF):
        prompt = probe.prompt(form.on, {name: value})
        if prompt is not None and prompt != anything and prompt not in found.values():
            found[value] = prompt
    return found if len(found) > 1 or anything is not None else {}


def _with_level_switch(form: ThinkingForm, probe: Probe, name: str, level: str) -> ThinkingForm:
    """Add an effort that is a switch of its own, such as Nemotron's `low_effort`."""
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
    return {value: efforts[value] for value in SCALE if value in efforts}


def nearest_effort(form: ThinkingForm, requested: str | None) -> str | None:
    """Return the template's effort for a request: the same, else the next weaker, else the weakest.

    Without a request it is "medium", or the one below the strongest: an agent asks many small
    questions, and templates default to their strongest (Qwen3.8-27B: 5 s at low, 62 s at xhigh for
    the same answer, 2026-08).
    """
    efforts = list(form.efforts)
    if not efforts:
        return None
    if requested in efforts:
        return requested
    if requested not in SCALE:
        return "medium" if "medium" in efforts else efforts[max(len(efforts) - 2, 0)]
    limit = SCALE.index(requested)
    weaker = [effort for effort in efforts if SCALE.index(effort) <= limit]
    return weaker[-1] if weaker else efforts[0]
