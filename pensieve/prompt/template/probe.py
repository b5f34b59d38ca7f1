"""What a model's chat template does with system turns, with results, and with the beginning of an answer, found out by small
conversations. For calls see call_turns.py.

Some templates refuse a system turn, some only take one at the start, and some pass over what they do not know without
a word. So it is tried, not read from a list of families.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.probing.probe import MORE
from pensieve.dialects.probing.turn_ends import RESULT, call_turn
from pensieve.errors import InvalidRequestError
from pensieve.prompt.boundaries import common_prefix_length
from pensieve.prompt.chat_tokenizer import ChatTokenizer

_FIRST = [("system", "zebra"), ("user", "quartz")]
_BETWEEN = [*_FIRST, ("system", "violin"), ("assistant", "copper"), ("user", "walnut")]


_ASKED: Mapping[str, object] = {"role": "user", "content": "quartz"}
_ADDED: Mapping[str, object] = {"role": "user", "content": "amber"}


@dataclass(frozen=True, slots=True)
class SystemTurns:
    """Where the template writes system turns: at the start, and between the others."""

    first: bool
    between: bool


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the template takes."""

    system: SystemTurns
    text_after_results: bool  # of a user, right after results of tools
    results_after_text: bool  # results of tools right after a user's text


@dataclass(frozen=True, slots=True)
class Opening:
    """What the template begins an answer with. shared: as much of it as stands before earlier answers too."""

    whole: str
    shared: str
    written: str = ""  # all that precedes the text of earlier answers
    closings: tuple[str, ...] = ()  # what turns end with that are not the model's to continue

    def completed(self, prompt: str) -> str:
        """Return the prompt with the beginning of an answer, if it ends in a closed turn without one.

        Some templates do not begin an answer after a result, and close the turn that has it.
        """
        if not self.whole or prompt.endswith(self.whole):
            return prompt
        is_closed = any(prompt.endswith(closing) for closing in self.closings)
        return prompt + self.whole if is_closed else prompt


def abilities_of(
    tokenizer: ChatTokenizer, dialect: Dialect, variables: Mapping[str, object]
) -> Abilities:
    """Try the template, told these variables, with calls as the dialect has them written."""

    def written(*messages: Mapping[str, object]) -> str:
        try:
            return tokenizer.render([_ASKED, call_turn(dialect), *messages], variables)
        except InvalidRequestError:
            return ""

    after, between = written(RESULT, _ADDED), written(_ADDED, RESULT)
    return Abilities(
        system_turns(tokenizer, variables),
        # Where turns must alternate, a user's text after results is one too many.
        text_after_results=after.find(MORE) < after.find("amber"),
        # Some look for results right after the calls only.
        results_after_text=MORE in between,
    )


def opening_of(tokenizer: ChatTokenizer, variables: Mapping[str, object]) -> Opening | None:
    """Try the template, told these variables; None where it does not tell its beginning of an answer from the rest."""
    asked = [_ASKED]
    answered = {"role": "assistant", "content": "zebra"}
    closed = {**variables, "add_generation_prompt": False}
    try:
        before = tokenizer.render(asked, closed)
        prompt = tokenizer.render(asked, variables)
        later = tokenizer.render([*asked, answered, *asked], closed)
        ended = tokenizer.render([*asked, answered], closed)
    except InvalidRequestError:
        return None
    written = later.removeprefix(before).partition("zebra")[0]
    if not prompt.startswith(before) or not later.startswith(before):
        return None
    whole = prompt.removeprefix(before)
    ends = (before.rpartition("quartz")[2], ended.rpartition("zebra")[2])
    return Opening(
        whole,
        whole[: common_prefix_length(whole, written)],
        written,
        tuple(end for end in ends if end.strip()),
    )


def system_turns(
    tokenizer: ChatTokenizer, variables: Mapping[str, object] | None = None
) -> SystemTurns:
    """Try the template of `tokenizer`, told these variables."""
    first = _writes_all(tokenizer, variables, _FIRST)
    return SystemTurns(first=first, between=first and _writes_all(tokenizer, variables, _BETWEEN))


def _writes_all(
    tokenizer: ChatTokenizer, variables: Mapping[str, object] | None, turns: list[tuple[str, str]]
) -> bool:
    """Whether every turn's text is in what the template writes, each after the one before."""
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        rendered = tokenizer.render(messages, variables)
    except InvalidRequestError:
        return False
    places = [rendered.find(text) for _, text in turns]
    return -1 not in places and places == sorted(places)
