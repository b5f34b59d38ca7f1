"""Splits a markdown answer into blocks as it arrives: those that are final, and the rest. Pure.

Only whole lines make a block final, so the blocks do not depend on how the text is split. Lines of
fenced code are final one by one: a program can be longer than the terminal is high.
"""

import re
from dataclasses import dataclass, replace

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Preceding lines for highlighting a line of code; more would make long blocks slow.
CONTEXT_LINES = 40
# A line that is or may become a fence.
FENCE = re.compile(r" {0,3}(`+|~+)")
PARSER = (
    # HTML is shown as text. References and images would hide text.
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable(["reference", "image"])
)


@dataclass(frozen=True, slots=True)
class Prose:
    """Any block but fenced code: a paragraph, a list, a table."""

    source: str
    start: int  # its first line in the text that was parsed
    is_paragraph: bool
    opens: bool = True


@dataclass(frozen=True, slots=True)
class Code:
    """Fenced code, or some of its lines."""

    language: str
    lines: tuple[str, ...]
    start: int  # the line of its opening fence
    first: int  # the lines before this one have been returned earlier
    opens: bool
    closes: bool


Block = Prose | Code


class MarkdownBlocks:
    """Owns the text that is not final; of open code also the last lines, for highlighting."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._partial = ""
        self._code_lines: int | None = None  # final ones in `_lines`; None: no code is open

    def feed(self, text: str) -> list[Block]:
        """Add `text` and return the blocks and lines of code that it finishes."""
        *whole, self._partial = (self._partial + text).split("\n")
        self._lines += whole
        return self._take_finished() if whole else []

    def rest(self) -> list[Block]:
        """Return the unfinished blocks as they look now.

        Open marks are closed; what may become a fence or a table is left out.
        """
        partial = "" if FENCE.fullmatch(self._partial) else self._partial
        blocks = self._parse(self._text() + partial)
        if blocks and isinstance(last := blocks[-1], Prose):
            blocks[-1] = replace(last, source=_as_finished(last))
        return blocks

    def end(self) -> list[Block]:
        """Return all remaining blocks and reset."""
        finished = self.feed("\n") if self._partial else []
        rest = self._parse(self._text())
        if rest and isinstance(last := rest[-1], Code):
            rest[-1] = replace(last, closes=True)
        self.__init__()
        return finished + rest

    def _take_finished(self) -> list[Block]:
        blocks = self._parse(self._text())
        if not blocks:
            self._lines = []
            return []
        *finished, last = blocks
        if isinstance(last, Prose):
            self._lines = self._lines[last.start :]
            self._code_lines = None
            return finished
        if last.closes:
            self._lines, self._code_lines = [], None
        else:
            opening, *code = self._lines[last.start :]
            self._lines = [opening, *code[-CONTEXT_LINES:]]
            self._code_lines = len(self._lines) - 1
        return blocks

    def _text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def _parse(self, text: str) -> list[Block]:
        tokens = [each for each in PARSER.parse(text) if each.level == 0 and each.map]
        lines = text.split("\n")
        starts = [_start(token) for token in tokens]
        ends = [*starts[1:], len(lines)]
        return [
            self._code(token)
            if token.type == "fence"
            else Prose(
                "\n".join(lines[start:end]).rstrip("\n"), start, token.type == "paragraph_open"
            )
            for token, start, end in zip(tokens, starts, ends, strict=False)
        ]

    def _code(self, token: Token) -> Code:
        start, end = token.map or [0, 0]
        lines = token.content.removesuffix("\n").split("\n") if token.content else []
        is_known = start == 0 and self._code_lines is not None
        return Code(
            language=(token.info.split() or [""])[0],
            lines=tuple(lines),
            start=start,
            first=(self._code_lines or 0) if is_known else 0,
            opens=not is_known,
            closes=end - start - 1 > len(lines),
        )


def _start(token: Token) -> int:
    return token.map[0] if token.map else 0


def _as_finished(block: Prose) -> str:
    """Return the source of an unfinished block as it probably ends."""
    lines = block.source.split("\n")
    while block.is_paragraph and lines and lines[-1].lstrip().startswith("|"):
        lines.pop()  # the head of a table, whose delimiter row is not complete
    source = "\n".join(lines)
    paragraph = source.rpartition("\n\n")[2]
    if paragraph.count("`") % 2:
        return source if paragraph.endswith(("`", " ")) else source + "`"
    if paragraph.count("**") % 2 and not paragraph.endswith(("**", " ")):
        return source + ("*" if paragraph.endswith("*") else "**")
    return source
