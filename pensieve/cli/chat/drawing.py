"""Draws the blocks of an answer on a terminal with rich.

Finished drawings are written once and scroll away. Live rows, which may still change, never exceed
the terminal's height, so that the cursor can reach them; only the end of a higher drawing is shown.
Colours are those of the terminal's palette that are legible on light and dark backgrounds. Text is
stripped of terminal control once more here, after markdown's entities and links are decoded.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar, cast

from markdown_it.token import Token
from pygments import token as kinds
from rich import markdown
from rich.console import (
    Console,
    ConsoleDimensions,
    ConsoleOptions,
    Group,
    RenderableType,
    RenderResult,
)
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from pensieve.cli.chat.blocks import PARSER, Block, Code
from pensieve.cli.ui.escapes import EscapeStripper
from pensieve.cli.ui.rich_console import terminal_console

MIN_COLUMNS = 20
RULE_COLUMNS = 40
LINE = "─"
ERASE_LINE = (ControlType.ERASE_IN_LINE, 2)
DIM = Style(dim=True)
THOUGHT = Style(dim=True, italic=True)
THEME = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold italic",
        "markdown.h4": "italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic",
        "markdown.code": "magenta",
        "markdown.item.bullet": "none",
        "markdown.item.number": "none",
        "markdown.block_quote": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "markdown.link": "none",
        "markdown.link_url": "underline",
    }
)
CODE_THEME = ANSISyntaxTheme(
    {
        kinds.Comment: Style(dim=True, italic=True),
        kinds.Keyword: Style(color="magenta"),
        kinds.Operator.Word: Style(color="magenta"),
        kinds.Name.Function: Style(bold=True),
        kinds.Name.Class: Style(bold=True),
        kinds.Name.Tag: Style(color="magenta"),
        kinds.Name.Decorator: Style(color="magenta"),
        kinds.String: Style(color="green"),
        kinds.Number: Style(color="cyan"),
        kinds.Generic.Deleted: Style(color="red"),
        kinds.Generic.Inserted: Style(color="green"),
        kinds.Generic.Heading: Style(bold=True),
        kinds.Generic.Subheading: Style(color="magenta"),
        kinds.Generic.Prompt: Style(bold=True),
    }
)

Row = list[Segment]
Size = tuple[int, int]
BLANK = Text()


class Screen:
    """Owns rich's console and the live rows. size: returns the terminal's columns and lines."""

    def __init__(
        self, write: Callable[[str], None], size: Callable[[], Size], encoding: str = "utf-8"
    ) -> None:
        self._console = terminal_console(write, encoding, THEME)
        self._size = size
        self._live: list[Row] = []
        self._columns = 0

    def draw(self, finished: Sequence[RenderableType], live: Sequence[RenderableType]) -> None:
        """Replace the live rows by `finished` for good, and draw `live` below."""
        columns, lines = self._console.size = ConsoleDimensions(*self._size())
        drawn = self._console.render_lines(Group(*live), pad=False) if live else []
        rows = drawn[-max(1, lines - 1) :]
        can_keep = not finished and columns == self._columns
        kept = _common_rows(self._live, rows) if can_keep else 0
        erased = sum(_height(row, columns) for row in self._live[kept:])
        if erased or finished or rows:
            change = Group(_erasure(erased), *finished, Segments(_joined(rows[kept:])))
            self._console.print(change, crop=False)
        self._live, self._columns = rows, columns


def _common_rows(old: Sequence[Row], new: Sequence[Row]) -> int:
    """Return how many rows stay. The last of either is written again, to place the cursor."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False))
    return max(0, min(sum(1 for _ in pairs), len(old) - 1, len(new) - 1))


def _height(row: Row, columns: int) -> int:
    """Return the lines of a row on a terminal that rewrapped it after becoming narrower."""
    return max(1, -(-Segment.get_line_length(row) // columns))


def _erasure(height: int) -> Control:
    """Erase the last rows, and move to the first of them."""
    if not height:
        return Control()
    above = ((ControlType.CURSOR_UP, 1), ERASE_LINE) * (height - 1)
    return Control(ControlType.CARRIAGE_RETURN, ERASE_LINE, *above)


def _joined(rows: Sequence[Row]) -> Iterable[Segment]:
    for at, row in enumerate(rows):
        if at:
            yield Segment.line()
        yield from row


def drawing_of(block: Block, *, is_live: bool) -> RenderableType:
    """Return a block's drawing. Finished code is wrapped by the terminal, and can be copied."""
    if not isinstance(block, Code):
        return _Rows(_Answer(block.source))
    language = _clean(block.language).replace("\n", " ")
    opening = [_rule(f"{LINE * 2} {language} " if language else "")] if block.opens else []
    closing = [_rule()] if block.closes else []
    code = _highlighted("\n".join(block.lines), block.language)[block.first :]
    text = Text("\n").join([*opening, *code, *closing])
    if not is_live:
        text.no_wrap, text.overflow = True, "ignore"
    return text


def thought(text: str) -> RenderableType:
    return Text(text, THOUGHT)


def note(text: str) -> RenderableType:
    return Text(text, DIM, no_wrap=True, overflow="ellipsis")


def _rule(title: str = "") -> Text:
    return Text(title + LINE * (RULE_COLUMNS - len(title)), DIM, no_wrap=True, overflow="crop")


def _highlighted(code: str, language: str) -> list[Text]:
    """Return the lines of `code` with its colours."""
    text = Syntax("", language or "text", theme=CODE_THEME).highlight(code.expandtabs(4))
    lines = list(text.split("\n", allow_blank=True))
    return lines[: code.count("\n") + 1] if code else []


def _clean(text: str) -> str:
    return EscapeStripper().feed(text)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A drawing without terminal control, and without the blanks with which rich surrounds it."""

    drawing: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        options = options.update(width=max(options.max_width, MIN_COLUMNS), height=None)
        rows = [_trimmed(row) for row in console.render_lines(self.drawing, options, pad=False)]
        filled = [at for at, row in enumerate(rows) if row]
        for row in rows[filled[0] : filled[-1] + 1] if filled else []:
            yield from row
            yield Segment.line()


def _trimmed(row: Row) -> Row:
    segments = [Segment(_clean(text), style) for text, style, control in row if not control]
    while segments and not segments[-1].text.strip():
        segments.pop()
    if segments:
        segments[-1] = Segment(segments[-1].text.rstrip(), segments[-1].style)
    return segments


class _Heading(markdown.Heading):
    LEVEL_ALIGN: ClassVar = {}


class _CodeBlock(markdown.CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n").join(_highlighted(str(self.text).rstrip("\n"), self.lexer_name))


class _Line(markdown.HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _rule()


class _Table(markdown.TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in cast("Iterable[Table]", super().__rich_console__(console, options)):
            for column in table.columns:
                column.overflow = "fold"  # otherwise long words are cut off in narrow columns
            yield table


class _ListItem(markdown.ListItem):
    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        segments = super().render_number(console, options, number, last_number)
        for at, segment in enumerate(cast("Iterable[Segment]", segments)):
            yield segment if at else Segment(f"{segment.text[1:-1]}. ", segment.style)


class _Answer(markdown.Markdown):
    """One block of an answer. Lines end where the model ends them; links show their targets."""

    elements: ClassVar = markdown.Markdown.elements | {
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "hr": _Line,
        "table_open": _Table,
        "list_item_open": _ListItem,
    }

    def __init__(self, source: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = PARSER.parse(source)
        for token in self.parsed:
            token.children = [*map(_inline, filter(_is_shown, token.children or ()))] or None


def _is_shown(token: Token) -> bool:
    """Return whether it is not a link whose text is its target."""
    return token.info != "auto"


def _inline(token: Token) -> Token:
    return Token("hardbreak", "br", 0) if token.type == "softbreak" else token
