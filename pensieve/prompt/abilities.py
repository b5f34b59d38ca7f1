"""What a model's chat template does with system turns, found out once by rendering a small conversation.

Some templates refuse a system turn, some only take one at the start, and some pass over what they do not know without
a word. So it is tried, not read from a list of families.
"""

from dataclasses import dataclass

from pensieve.errors import InvalidRequestError
from pensieve.prompt.template import ChatTokenizer

_FIRST = [("system", "zebra"), ("user", "quartz")]
_BETWEEN = [*_FIRST, ("system", "violin"), ("assistant", "copper"), ("user", "walnut")]


@dataclass(frozen=True, slots=True)
class SystemTurns:
    """Where the template writes system turns: at the start, and between the others."""

    first: bool
    between: bool


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
