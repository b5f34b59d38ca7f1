"""Parts an answer in markdown into pieces as it arrives: those that nothing which comes can change, and those that still may.

Pure. What is finished depends on whole lines alone, so the pieces are the same however the text is split.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from markdown_it import MarkdownIt
from markdown_it.token import Token

# So much code before a line is enough to tell what the line is; more would make long blocks slow.
CONTEXT_LINES = 40
UNTOLD_FENCE = re.compile(r" {0,3}(`{1,2}|~{1,2})$")
PARSER = (
    # HTML is text here: what a model says is shown, not obeyed. References and images would hide what they say.
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable(["reference", "image"])
)


@dataclass(frozen=True, slots=True)
class Prose:
    """One block, or one item of a list. number: the item's, in an ordered list. is_next: an item after another one."""

    source: str
    number: int | None = None
    is_next: bool = False


@dataclass(frozen=True, slots=True)
class FenceOpening:
    """Code in `language` follows."""

    language: str


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of code. before: what went before them in the same block."""

    language: str
    lines: tuple[str, ...]
    before: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FenceEnd:
    """The code is over."""


Piece = Prose | FenceOpening | Code | FenceEnd


@dataclass(slots=True)
class Fence:
    """An open block of code. Owns its lines so far."""

    mark: str
    indent: int
    language: str
    lines: list[str] = field(default_factory=list[str])

    def is_closed_by(self, line: str) -> bool:
        """Whether `line` ends the block (CommonMark 4.5)."""
        words = line.strip()
        is_mark = len(words) >= len(self.mark) and set(words) == {self.mark[0]}
        return is_mark and len(line) - len(line.lstrip()) < 4

    def code(self, line: str) -> Code:
        """`line` as a piece."""
        shown = line[min(self.indent, len(line) - len(line.lstrip())) :]
        return Code(self.language, (shown,), tuple(self.lines[-CONTEXT_LINES:]))


class Blocks:
    """Owns the text that is not finished yet. number, is_next: of the list item that it begins with, if it does."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._partial = ""
        self._fence: Fence | None = None
        self._number: int | None = None
        self._is_next = False

    def feed(self, text: str) -> list[Piece]:
        """Take `text` in; the pieces that it finishes."""
        *whole, self._partial = (self._partial + text).split("\n")
        return [piece for line in whole for piece in self._line(line)]

    def rest(self) -> list[Piece]:
        """What is not finished, as it looks now: open marks closed, half a table or half a fence not yet said."""
        if self._fence:
            is_closing = self._partial.strip() and not self._partial.strip().strip(
                self._fence.mark[0]
            )
            return [] if is_closing or not self._partial else [self._fence.code(self._partial)]
        lines = [*self._lines, "" if UNTOLD_FENCE.match(self._partial) else self._partial]
        lines = lines[: len(lines) - _half_table(lines)]
        return list(self._pieces(_with_marks_closed("\n".join(lines))))

    def end(self) -> list[Piece]:
        """Nothing comes any more: all the rest."""
        pieces = self.feed("\n") if self._partial else []
        pieces += [FenceEnd()] if self._fence else self._pieces("\n".join(self._lines))
        self.__init__()
        return pieces

    def _line(self, line: str) -> Iterator[Piece]:
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
        """All blocks but the last one; of a list, all items but the last; a fence as soon as it is open."""
        blocks = _top_level(PARSER.parse("\n".join(self._lines)))
        if not blocks:
            self._lines.clear()
            return
        last = blocks[-1]
        if last[0].type == "fence":
            yield from self._pieces("\n".join(self._lines[: _start(last[0])]))
            yield from self._open(last[0])
            return
        kept = _start(_items(last)[-1][0] if _items(last) else last[0])
        if not kept:
            return
        pieces = list(self._pieces("\n".join(self._lines)))
        self._lines = self._lines[kept:]
        held = pieces.pop()
        if isinstance(held, Prose):
            self._number, self._is_next = held.number, held.is_next
        yield from pieces

    def _open(self, token: Token) -> Iterator[Piece]:
        line = self._lines[_start(token)]
        language = (token.info.split() or [""])[0]
        self._fence = Fence(token.markup, len(line) - len(line.lstrip()), language)
        self._lines.clear()
        self._number, self._is_next = None, False
        yield FenceOpening(language)

    def _pieces(self, source: str) -> Iterator[Piece]:
        """Everything in `source`. Code that is fenced comes as its opening and its lines."""
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
                yield Prose(_cut(lines, token))

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
            yield Prose(_cut(lines, item[0]), own, is_next)


def _top_level(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each block."""
    return _grouped(tokens, 0)


def _items(block: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each item, where the block is a list."""
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


def _cut(lines: Sequence[str], token: Token) -> str:
    start, end = token.map or [0, 0]
    return "\n".join(lines[start:end]).rstrip()


def _half_table(lines: Sequence[str]) -> int:
    """How many of the last lines may become a table and are none yet: a head, and not all of the line below it."""
    said = lines[:-1] if not lines[-1] else lines
    rows = list(takewhile(lambda line: line.lstrip().startswith("|"), reversed(said)))
    if len(rows) == 2 and set(rows[0]) - set("|-: "):
        return 0
    return len(rows) + len(lines) - len(said) if len(rows) in {1, 2} else 0


def _with_marks_closed(source: str) -> str:
    """`source` with the last paragraph's open `**` or backtick closed, so that it looks as it will."""
    paragraph = source.rpartition("\n\n")[2]
    if paragraph.count("`") % 2:
        return source if paragraph.endswith(("`", " ")) else source + "`"
    if paragraph.count("**") % 2 and not paragraph.endswith(("**", " ")):
        return source + ("*" if paragraph.endswith("*") else "**")
    return source
