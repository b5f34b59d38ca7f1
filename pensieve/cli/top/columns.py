"""Tables whose less important columns are left out on a narrow terminal. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

RowT = TypeVar("RowT")

GAP = 2
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Column(Generic[RowT]):
    title: str
    columns: int  # the width
    rank: int  # the highest is left out first
    cell: Callable[[RowT], RenderableType]
    is_left: bool = False
    grows: bool = False  # takes what the others leave


def fitting(columns: Sequence[Column[RowT]], width: int) -> list[Column[RowT]]:
    """Return the columns that fit next to each other; always the most important one."""
    kept = sorted(columns, key=lambda column: column.rank)
    while len(kept) > 1 and sum(each.columns + GAP for each in kept) - GAP > width:
        kept.pop()
    return [column for column in columns if column in kept]


def table(columns: Sequence[Column[RowT]], rows: Sequence[RowT], width: int) -> Table:
    """Return a table of one line a row, with the titles above."""
    kept = fitting(columns, width)
    spare = max(0, width - sum(each.columns + GAP for each in kept) + GAP)
    drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for column in kept:
        drawn.add_column(
            column.title,
            width=min(width, column.columns + (spare if column.grows else 0)),
            justify="left" if column.is_left else "right",
            no_wrap=True,
        )
    for row in rows:
        drawn.add_row(*(_text(column.cell(row)) for column in kept))
    return drawn


def _text(cell: RenderableType) -> RenderableType:
    """Keep rich from reading markup in texts of the server."""
    return Text(cell) if isinstance(cell, str) else cell
