"""Text in llguidance's dialect of Lark: literals with control tokens in them, regular expressions, JSON Schemas."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pensieve.dialects.dialect import Schema

# How a small model's JSON is kept from wandering: one way to space it. What a grammar cannot hold to is passed over.
_GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
# What has a meaning in a regular expression, or ends one.
_MEANING = re.compile(r"[\\.+*?()|\[\]{}^$/&~#\-]")

ANY = "(?s:.*)"


class Literals:
    """Writes literals for one tokenizer. controls: its control tokens, which no text spells, by their texts."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._controls = controls
        names = sorted(controls, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None

    def is_token(self, text: str) -> bool:
        """Whether it is one control token, and nothing else."""
        return text in self._controls

    def from_token(self, text: str) -> str | None:
        """What is left of `text` from its first control token on, as a literal; None where it has none."""
        found = self._names.search(text) if self._names else None
        return self.literal(text[found.start() :]) if found else None

    def literal(self, text: str) -> str:
        """The very `text`; nothing for an empty one."""
        return " ".join(self._marks(self._split(text)))

    def around(self, before: str, text: str, after: str) -> str:
        """`text`, which spells no control token whatever it holds, between two marks."""
        first, start, end, last = self.edges(before, after)
        whole = start + text + end
        return " ".join(filter(None, [first, quoted(whole) if whole else "", last]))

    def edges(self, before: str, after: str) -> tuple[str, str, str, str]:
        """Two marks as literals of their control tokens, and as the texts between those tokens and what is between."""
        *first, start = self._split(before)
        end, *last = self._split(after)
        return " ".join(self._marks(first)), start, end, " ".join(self._marks(last))

    def _split(self, text: str) -> list[str]:
        """Texts and control tokens in turn; a text is first and last."""
        return re.split(f"({self._names.pattern})", text) if self._names else [text]

    def _marks(self, parts: Sequence[str]) -> Iterator[str]:
        for part in parts:
            if part:
                is_mark = part in self._controls
                yield f"<[{self._controls[part]}]>" if is_mark else quoted(part)


def quoted(text: str) -> str:
    """A string literal."""
    return json.dumps(text)


def pattern(text: str) -> str:
    """What matches `text` alone, as a part of a regular expression."""
    return _MEANING.sub(r"\\\g<0>", text).replace("\n", r"\n")


def text_without(*patterns: str) -> str:
    """A terminal: any text that none of `patterns` matches as a whole."""
    return " & ".join([f"/{ANY}/", *(f"~/{pattern}/" for pattern in patterns)])


def text_up_to(mark: str, *excluded: str) -> str:
    """The body of a lazy rule: any text that none of `excluded` matches, up to the first `mark`."""
    return " & ".join([f"/{ANY}{pattern(mark)}/", *(f"~/{one}/" for one in excluded)])


def holds(text: str) -> str:
    """A pattern of texts that hold `text`."""
    return f"{ANY}{pattern(text)}{ANY}"


def json_of(schema: Schema) -> str:
    """JSON that the schema takes."""
    return f"%json {json.dumps({'x-guidance': _GUIDANCE, **schema})}"


def one_of(choices: Sequence[str]) -> str:
    """Any of these."""
    return f"({' | '.join(choices)})" if len(choices) > 1 else choices[0]


def in_order(items: Sequence[tuple[str, bool]], separator: str) -> str:
    """All the items, those that are optional (the second of each) or not, with separators between what is there."""
    if not separator:
        return " ".join(item if is_needed else f"({item})?" for item, is_needed in items)
    return _some(list(items), separator)


def _some(items: list[tuple[str, bool]], separator: str) -> str:
    """By what comes first: each item that may, followed by the rest with a separator before each."""
    firsts: list[str] = []
    for at, (item, is_needed) in enumerate(items):
        rest = (
            f"{separator} {other}" if needed else f"({separator} {other})?"
            for other, needed in items[at + 1 :]
        )
        firsts.append(" ".join([item, *rest]))
        if is_needed:
            return one_of(firsts)
    return f"{one_of(firsts)}?" if len(firsts) > 1 else f"({firsts[0]})?" if firsts else ""
