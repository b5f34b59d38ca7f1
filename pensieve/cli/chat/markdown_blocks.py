"""Splits a markdown answer into pieces as it arrives: those that are final, and the rest.

Pure. Finality depends on whole lines only, so the pieces do not depend on how the text is split.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Preceding lines for highlighting a line of code; more would make long blocks slow.
CONTEXT_LINES = 40
PARTIAL_FENCE = re.compile(r" {0,3}(`{1,2}|~{1,2})$")
PARSER = (
    # HTML is shown as text. References and images would hide text.
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable(["reference", "image"])
)


@dataclass(frozen=True, slots=True)
class Prose:
    source: str
    number: int | None = None  # of an item in an ordered list
    is_next: bool = False  # an item that follows another one


@dataclass(frozen=True, slots=True)
class FenceOpening:
    language: str


@dataclass(frozen=True, slots=True)
class Code:
    language: str
    lines: tuple[str, ...]
    before: tuple[str, ...]  # preceding lines of the same block


@dataclass(frozen=True, slots=True)
class FenceEnd: ...


Piece = Prose | FenceOpening | Code | FenceEnd


@dataclass(slots=True)
class Fence:
    """An open code block. Owns its lines so far."""

    mark: str
    indent: int
    language: str
    lines: list[str] = field(default_factory=list[str])

    def is_closed_by(self, line: str) -> bool:
        """Return whether `line` ends the block (CommonMark 4.5)."""
        stripped = line.strip()
        is_mark = len(stripped) >= len(self.mark) and set(stripped) == {self.mark[0]}
        return is_mark and len(line) - len(line.lstrip()) < 4

    def code(self, line: str) -> Code:
        dedented = line[min(self.indent, len(line) - len(line.lstrip())) :]
        return Code(self.language, (dedented,), tuple(self.lines[-CONTEXT_LINES:]))


class Blocks:
    """Owns the unfinished text."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._partial = ""
        self._fence: Fence | None = None
        self._number: int | None = None
        self._is_next = False

    def feed(self, text: str) -> list[Piece]:
        """Add `text` and return the pieces that it finishes."""
        *whole, self._partial = (self._partial + text).split("\n")
        return [piece for line in whole for piece in self._add_line(line)]

    def rest(self) -> list[Piece]:
        """Return the unfinished pieces as they look now.

        Open marks are closed; a half table and a half fence are left out.
        """
        if self._fence:
            is_closing = self._partial.strip() and not self._partial.strip().strip(
                self._fence.mark[0]
            )
            return [] if is_closing or not self._partial else [self._fence.code(self._partial)]
        lines = [*self._lines, "" if PARTIAL_FENCE.match(self._partial) else self._partial]
        lines = lines[: len(lines) - _half_table(lines)]
        return list(self._pieces(_with_marks_closed("\n".join(lines))))

    def end(self) -> list[Piece]:
        """Return all remaining pieces and reset."""
        pieces = self.feed("\n") if self._partial else []
        pieces += [FenceEnd()] if self._fence else self._pieces("\n".join(self._lines))
        self.__init__()
        return pieces

    def _add_line(self, line: str) -> Iterator[Piece]:
        if self._fence is None:
            self._lines.append(line)
            yield from self._finished()
        elif self._fence.is_closed_by(line):
            self._fence = None
            yield FenceEnd()
        else:
            code = self._fence.code(line)
            self._fence.lines += code.lines
            yield code

    def _finished(self) -> Iterator[Piece]:
        """Yield all blocks but the last; of a list all items but the last; a fence at once."""
        blocks = _top_level(PARSER.parse("\n".join(self._lines)))
        if not blocks:
            self._lines.clear()
            return
        last = blocks[-1]
        if last[0].type == "fence":
            yield from self._pieces("\n".join(self._lines[: _start(last[0])]))
            yield from self._open(last[0])
            return
        start = _start(_items(last)[-1][0] if _items(last) else last[0])
        if not start:
            return
        pieces = list(self._pieces("\n".join(self._lines)))
        self._lines = self._lines[start:]
        unfinished = pieces.pop()
        if isinstance(unfinished, Prose):
            self._number, self._is_next = unfinished.number, unfinished.is_next
        yield from pieces

    def _open(self, token: Token) -> Iterator[Piece]:
        line = self._lines[_start(token)]
        language = (token.info.split() or [""])[0]
        self._fence = Fence(token.markup, len(line) - len(line.lstrip()), language)
        self._lines.clear()
        self._number, self._is_next = None, False
        yield FenceOpening(language)

    def _pieces(self, source: str) -> Iterator[Piece]:
        """Yield the pieces of `source`. A fence yields its opening and its lines."""
        lines = source.split("\n")
        for index, block in enumerate(_top_level(PARSER.parse(source))):
            token = block[0]
            if token.type == "fence":
                language = (token.info.split() or [""])[0]
                yield FenceOpening(language)
                if token.content:
                    yield Code(language, tuple(token.content.rstrip("\n").split("\n")), ())
            elif items := _items(block):
                yield from self._listed(items, lines, token, is_first=index == 0)
            else:
                yield Prose(_source_of(lines, token))

    def _listed(
        self, items: Sequence[list[Token]], lines: Sequence[str], token: Token, *, is_first: bool
    ) -> Iterator[Prose]:
        is_ordered = token.type == "ordered_list_open"
        number = int(token.attrs.get("start", 1)) if is_ordered else None
        if is_first and is_ordered and self._number is not None:
            number = self._number
        for at, item in enumerate(items):
            own = None if number is None else number + at
            is_next = at > 0 or (is_first and self._is_next)
            yield Prose(_source_of(lines, item[0]), own, is_next)


def _top_level(tokens: Sequence[Token]) -> list[list[Token]]:
    return _grouped(tokens, 0)


def _items(block: Sequence[Token]) -> list[list[Token]]:
    if block[0].type not in {"ordered_list_open", "bullet_list_open"}:
        return []
    return _grouped(block[1:-1], 1)


def _grouped(tokens: Sequence[Token], level: int) -> list[list[Token]]:
    groups: list[list[Token]] = []
    for token in tokens:
        if token.level == level and token.nesting >= 0:
            groups.append([])
        groups[-1].append(token)
    return groups


def _start(token: Token) -> int:
    return token.map[0] if token.map else 0


def _source_of(lines: Sequence[str], token: Token) -> str:
    start, end = token.map or [0, 0]
    return "\n".join(lines[start:end]).rstrip()


def _half_table(lines: Sequence[str]) -> int:
    """Return how many of the last lines are a table head without a complete delimiter row."""
    complete = lines[:-1] if not lines[-1] else lines
    rows = list(takewhile(lambda line: line.lstrip().startswith("|"), reversed(complete)))
    if len(rows) == 2 and set(rows[0]) - set("|-: "):
        return 0
    return len(rows) + len(lines) - len(complete) if len(rows) in {1, 2} else 0


def _with_marks_closed(source: str) -> str:
    """Close an open `**` or backtick of the last paragraph, so that it looks final."""
    paragraph = source.rpartition("\n\n")[2]
    if paragraph.count("`") % 2:
        return source if paragraph.endswith(("`", " ")) else source + "`"
    if paragraph.count("**") % 2 and not paragraph.endswith(("**", " ")):
        return source + ("*" if paragraph.endswith("*") else "**")
    return source
