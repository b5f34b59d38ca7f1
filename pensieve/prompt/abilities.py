"""What a model's chat template does with system turns and with the beginning of an answer, found out by small conversations.

Some templates refuse a system turn, some only take one at the start, and some pass over what they do not know without
a word. So it is tried, not read from a list of families.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pensieve.errors import InvalidRequestError
from pensieve.prompt.places import common_letters
from pensieve.prompt.template import ChatTokenizer

_FIRST = [("system", "zebra"), ("user", "quartz")]
_BETWEEN = [*_FIRST, ("system", "violin"), ("assistant", "copper"), ("user", "walnut")]


@dataclass(frozen=True, slots=True)
class SystemTurns:
    """Where the template writes system turns: at the start, and between the others."""

    first: bool
    between: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """What the template begins an answer with. shared: as much of it as stands before earlier answers too."""

    whole: str
    shared: str


def opening_of(tokenizer: ChatTokenizer, variables: Mapping[str, object]) -> Opening | None:
    """Try the template, told these variables; None where it does not tell its beginning of an answer from the rest."""
    asked = [{"role": "user", "content": "quartz"}]
    answered = {"role": "assistant", "content": "zebra"}
    closed = {**variables, "add_generation_prompt": False}
    try:
        before = tokenizer.render(asked, closed)
        prompt = tokenizer.render(asked, variables)
        later = tokenizer.render([*asked, answered, *asked], closed)
    except InvalidRequestError:
        return None
    written = later.removeprefix(before).partition("zebra")[0]
    if not prompt.startswith(before) or not later.startswith(before):
        return None
    whole = prompt.removeprefix(before)
    return Opening(whole, whole[: common_letters(whole, written)])


def system_turns(tokenizer: ChatTokenizer) -> SystemTurns:
    """Try the template of `tokenizer`."""
    first = _writes_all(tokenizer, _FIRST)
    return SystemTurns(first=first, between=first and _writes_all(tokenizer, _BETWEEN))


def _writes_all(tokenizer: ChatTokenizer, turns: list[tuple[str, str]]) -> bool:
    """Whether every turn's text is in what the template writes, each after the one before."""
    try:
        rendered = tokenizer.render([{"role": role, "content": text} for role, text in turns])
    except InvalidRequestError:
        return False
    places = [rendered.find(text) for _, text in turns]
    return -1 not in places and places == sorted(places)
