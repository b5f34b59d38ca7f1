"""Write llguidance's dialect of Lark: literals with control tokens, patterns, JSON Schemas."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pensieve.dialects.dialect import Schema

# One fixed spacing, since small models get lost in free whitespace. Unsupported keywords are
# ignored.
_GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
# Characters with a meaning in a regular expression, or at its end.
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$/&~#\-]")

ANY = "(?s:.*)"


class Literals:
    """Writes literals for one tokenizer. controls: its control tokens by their texts."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._controls = controls
        names = sorted(controls, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None

    def is_token(self, text: str) -> bool:
        return text in self._controls

    def from_token(self, text: str) -> str | None:
        """Return `text` from its first control token on, as a literal; None if it has none."""
        found = self._names.search(text) if self._names else None
        return self.literal(text[found.start() :]) if found else None

    def literal(self, text: str) -> str:
        """Return a literal for `text`; empty for an empty one."""
        return " ".join(self._marks(self._split(text)))

    def around(self, before: str, text: str, after: str) -> str:
        """Return `text`, without control tokens whatever it contains, between two marks."""
        first, start, end, last = self.edges(before, after)
        whole = start + text + end
        return " ".join(filter(None, [first, quoted(whole) if whole else "", last]))

    def edges(self, before: str, after: str) -> tuple[str, str, str, str]:
        """Split two marks around a text at their control tokens.

        Returns the control tokens before and after as literals, and the plain text between them and
        the text: (tokens, plain text, plain text, tokens).
        """
        *first, start = self._split(before)
        end, *last = self._split(after)
        return " ".join(self._marks(first)), start, end, " ".join(self._marks(last))

    def _split(self, text: str) -> list[str]:
        """Return texts and control tokens in turn; a text is first and last."""
        return re.split(f"({self._names.pattern})", text) if self._names else [text]

    def _marks(self, parts: Sequence[str]) -> Iterator[str]:
        for part in parts:
            if part:
                is_mark = part in self._controls
                yield f"<[{self._controls[part]}]>" if is_mark else quoted(part)


def quoted(text: str) -> str:
    """Return a string literal."""
    return json.dumps(text)


def pattern(text: str) -> str:
    """Return a regular expression that matches only `text`."""
    return _SPECIAL.sub(r"\\\g<0>", text).replace("\n", r"\n")


def text_without(*patterns: str) -> str:
    """Return a terminal: any text that none of `patterns` fully matches."""
    return " & ".join([f"/{ANY}/", *(f"~/{pattern}/" for pattern in patterns)])


def text_up_to(mark: str, *excluded: str) -> str:
    """Return the body of a lazy rule: any text up to `mark`, unless `excluded` matches it."""
    return " & ".join([f"/{ANY}{pattern(mark)}/", *(f"~/{one}/" for one in excluded)])


def holds(text: str) -> str:
    """Return a pattern of texts that contain `text`."""
    return f"{ANY}{pattern(text)}{ANY}"


def json_of(schema: Schema) -> str:
    """Return JSON that obeys the schema."""
    return f"%json {json.dumps({'x-guidance': _GUIDANCE, **schema})}"


def one_of(choices: Sequence[str]) -> str:
    return f"({' | '.join(choices)})" if len(choices) > 1 else choices[0]


def in_order(items: Sequence[tuple[str, bool]], separator: str) -> str:
    """Return all items in order, with separators between those present.

    The second value of an item: whether it is required.
    """
    if not separator:
        return " ".join(item if is_required else f"({item})?" for item, is_required in items)
    return _some(list(items), separator)


def _some(items: list[tuple[str, bool]], separator: str) -> str:
    """Enumerate the possible first items; each is followed by the rest, with separators."""
    firsts: list[str] = []
    for at, (item, is_required) in enumerate(items):
        rest = (
            f"{separator} {other}" if is_other_required else f"({separator} {other})?"
            for other, is_other_required in items[at + 1 :]
        )
        firsts.append(" ".join([item, *rest]))
        if is_required:
            return one_of(firsts)
    return f"{one_of(firsts)}?" if len(firsts) > 1 else f"({firsts[0]})?" if firsts else ""
