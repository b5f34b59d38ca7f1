"""Probe how a chat template writes system turns, results and the beginning of an answer.

Some templates refuse a system turn, some accept one only at the start, and some silently omit what
they do not expect. So small conversations are rendered, instead of a list of families.
call_turns.py does the same for calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import commonprefix

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.probing.probe import MORE
from pensieve.dialects.probing.turn_ends import RESULT, call_turn
from pensieve.errors import InvalidRequestError
from pensieve.prompt.chat_tokenizer import ChatTokenizer

_FIRST = [("system", "zebra"), ("user", "quartz")]
_BETWEEN = [*_FIRST, ("system", "violin"), ("assistant", "copper"), ("user", "walnut")]


_QUESTION: Mapping[str, object] = {"role": "user", "content": "quartz"}
_FOLLOW_UP: Mapping[str, object] = {"role": "user", "content": "amber"}


@dataclass(frozen=True, slots=True)
class SystemTurns:
    first: bool  # at the start
    between: bool  # between other turns


@dataclass(frozen=True, slots=True)
class Abilities:
    system: SystemTurns
    text_after_results: bool  # a user's text right after tool results
    results_after_text: bool  # tool results right after a user's text


@dataclass(frozen=True, slots=True)
class Opening:
    whole: str
    shared: str  # the part of it that precedes earlier answers too
    written: str = ""  # all that precedes the text of earlier answers
    closings: tuple[str, ...] = ()  # ends of turns that the model does not continue


def abilities_of(
    tokenizer: ChatTokenizer, dialect: Dialect, variables: Mapping[str, object]
) -> Abilities:
    """Probe the template with these variables and the dialect's calls."""

    def written(*messages: Mapping[str, object]) -> str:
        try:
            return tokenizer.render([_QUESTION, call_turn(dialect), *messages], variables)
        except InvalidRequestError:
            return ""

    after, between = written(RESULT, _FOLLOW_UP), written(_FOLLOW_UP, RESULT)
    return Abilities(
        system_turns(tokenizer, variables),
        # Where turns must alternate, a user's text after results is an extra turn.
        text_after_results=after.find(MORE) < after.find("amber"),
        # Some expect results only right after the calls.
        results_after_text=MORE in between,
    )


def opening_of(tokenizer: ChatTokenizer, variables: Mapping[str, object]) -> Opening | None:
    """Probe the template with these variables; None if the opening cannot be separated."""
    question = [_QUESTION]
    answer = {"role": "assistant", "content": "zebra"}
    closed = {**variables, "add_generation_prompt": False}
    try:
        before = tokenizer.render(question, closed)
        prompt = tokenizer.render(question, variables)
        continued = tokenizer.render([*question, answer, *question], closed)
        ended = tokenizer.render([*question, answer], closed)
    except InvalidRequestError:
        return None
    written = continued.removeprefix(before).partition("zebra")[0]
    if not prompt.startswith(before) or not continued.startswith(before):
        return None
    whole = prompt.removeprefix(before)
    ends = (before.rpartition("quartz")[2], ended.rpartition("zebra")[2])
    return Opening(
        whole,
        commonprefix([whole, written]),  # noqa: RUF071 -- no paths
        written,
        tuple(end for end in ends if end.strip()),
    )


def system_turns(
    tokenizer: ChatTokenizer, variables: Mapping[str, object] | None = None
) -> SystemTurns:
    """Probe the template with these variables."""
    first = _writes_all(tokenizer, variables, _FIRST)
    return SystemTurns(first=first, between=first and _writes_all(tokenizer, variables, _BETWEEN))


def _writes_all(
    tokenizer: ChatTokenizer, variables: Mapping[str, object] | None, turns: list[tuple[str, str]]
) -> bool:
    """Return whether the rendered text has every turn's text, in order."""
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        rendered = tokenizer.render(messages, variables)
    except InvalidRequestError:
        return False
    offsets = [rendered.find(text) for _, text in turns]
    return -1 not in offsets and offsets == sorted(offsets)
