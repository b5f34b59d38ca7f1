"""Renders pieces of an answer as rows of styled text of the terminal's width. Wraps rich.

Colours are those of the terminal's palette that are legible on light and dark backgrounds. rich
writes to no file: rows are values. Text is stripped of terminal control once more here, after
entities and links are decoded.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote

from markdown_it.token import Token
from pygments import token as kinds
from rich import markdown
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from pensieve.cli.chat.markdown_blocks import PARSER, Code, FenceEnd, FenceOpening, Piece, Prose
from pensieve.cli.ui.escapes import EscapeStripper

MIN_COLUMNS = 20
RULE_COLUMNS = 40
LINE = "─"
# For terminals without these characters. rich chooses table borders by itself.
PLAIN = str.maketrans("─•▌…", "-*|.")
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


@dataclass(frozen=True, slots=True)
class Row:
    text: str  # one line of the terminal, with its styles
    cells: int  # its width; more than the terminal's if the terminal is to wrap it


BLANK = Row("", 0)


class Rows:
    """Owns rich's console. encoding: the terminal's."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._console = Console(
            file=_EncodingOnly(encoding),
            force_terminal=True,
            color_system="standard",
            theme=THEME,
            highlight=False,
            emoji=False,
            markup=False,
            width=80,
            legacy_windows=False,
        )

    def of(self, piece: Piece, columns: int, *, folds: bool) -> list[Row]:
        """Return the rows of one piece.

        folds: wrap wide code here. Otherwise the terminal wraps it, and it can be copied.
        """
        match piece:
            case Prose():
                return _strip_blank_rows(self._drawn(_Answer(piece), columns))
            case FenceOpening(language):
                title = f"{LINE * 2} {_clean(language)} " if language else ""
                return [self._rule(title, columns)]
            case FenceEnd():
                return [self._rule("", columns)]
            case Code() if folds:
                return self._drawn(Text("\n").join(_highlighted(piece)), columns)
            case Code():
                return [self._row(line.render(self._console)) for line in _highlighted(piece)]

    def of_thought(self, text: str, columns: int) -> list[Row]:
        return self._drawn(Text(text, THOUGHT), columns)

    def of_note(self, text: str, columns: int) -> list[Row]:
        return self._drawn(Text(text, DIM, no_wrap=True, overflow="ellipsis"), columns)

    def _rule(self, title: str, columns: int) -> Row:
        width = min(RULE_COLUMNS, columns)
        line = (title + LINE * width)[: max(width, len(title))]
        return self._drawn(Text(line, DIM, no_wrap=True, overflow="crop"), columns)[0]

    def _drawn(self, drawing: RenderableType, columns: int) -> list[Row]:
        options = self._console.options.update(width=max(columns, MIN_COLUMNS), height=None)
        drawn = self._console.render_lines(drawing, options, pad=False)
        return [self._row(line) for line in drawn]

    def _row(self, segments: Iterable[Segment]) -> Row:
        visible = [segment for segment in segments if not segment.control and segment.text != "\n"]
        while visible and not visible[-1].text.strip():
            visible.pop()
        if visible:
            visible[-1] = Segment(visible[-1].text.rstrip(), visible[-1].style)
        text = "".join(
            (segment.style or Style()).render(segment.text, color_system=ColorSystem.STANDARD)
            for segment in visible
        )
        cells = sum(segment.cell_length for segment in visible)
        return Row(
            text if self._console.encoding.startswith("utf") else text.translate(PLAIN), cells
        )


def _strip_blank_rows(rows: Sequence[Row]) -> list[Row]:
    """Strip blank rows: the space between blocks belongs to the caller."""
    nonblank = [at for at, row in enumerate(rows) if row.cells]
    return list(rows[nonblank[0] : nonblank[-1] + 1]) if nonblank else []


class _EncodingOnly(io.StringIO):
    """A file that gives rich an encoding and is never written to."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._encoding


def _highlighted(piece: Code) -> Sequence[Text]:
    syntax = Syntax("", piece.language or "text", theme=CODE_THEME)
    code = "\n".join((*piece.before, *piece.lines)).expandtabs(4)
    text = syntax.highlight(code)
    text.rstrip()
    lines = text.split("\n", allow_blank=True)
    missing = len(piece.before) + len(piece.lines) - len(lines)
    return [*lines, *[Text("")] * missing][-len(piece.lines) :]


def _clean(text: str) -> str:
    return EscapeStripper().feed(text).replace("\n", " ")


class _Heading(markdown.Heading):
    LEVEL_ALIGN: ClassVar = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "left")


class _CodeBlock(markdown.CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip("\n")
        lines = tuple(code.split("\n"))
        yield Text("\n").join(_highlighted(Code(self.lexer_name, lines, ())))


class _Line(markdown.HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(LINE * min(RULE_COLUMNS, options.max_width), DIM)


class _ListItem(markdown.ListItem):
    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        numeral = f"{number}. ".rjust(4)
        inner = options.update(width=options.max_width - len(numeral))
        for index, line in enumerate(console.render_lines(self.elements, inner, style=self.style)):
            yield Segment(numeral if index == 0 else " " * len(numeral))
            yield from line
            yield Segment("\n")


class _Answer(markdown.Markdown):
    """One block of an answer. Links show their targets; decoded text is stripped of control."""

    elements: ClassVar = markdown.Markdown.elements | {
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "hr": _Line,
        "list_item_open": _ListItem,
    }

    def __init__(self, piece: Prose) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = PARSER.parse(piece.source)
        for token in self.parsed:
            if token.type == "ordered_list_open" and token.level == 0 and piece.number is not None:
                token.attrs["start"] = piece.number
            token.content = EscapeStripper().feed(token.content)
            if token.children is not None:
                token.children = [*_inline_tokens(token.children)]


def _inline_tokens(tokens: Sequence[Token]) -> Iterable[Token]:
    """Yield inline tokens with line ends preserved, and links as text and target."""
    texts: list[str] = []
    address = ""
    for token in tokens:
        match token.type:
            case "link_open":
                texts, address = [], str(token.attrs.get("href", ""))
            case "link_close":
                text = "".join(texts)
                is_visible = text in {address, unquote(address), address.removeprefix("mailto:")}
                if not is_visible:
                    yield Token("text", "", 0, content=_clean(f" ({address})"))
            case "softbreak":
                yield Token("hardbreak", "br", 0)
            case _:
                token.content = EscapeStripper().feed(token.content)
                texts.append(token.content)
                yield token
