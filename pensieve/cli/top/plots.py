"""Small plots as text: a line of points over time, and parts of a whole. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from pensieve.cli.client.activity import Point

LEVELS = "▁▂▃▄▅▆▇█"
FREE = "·"


def sparkline(points: Sequence[Point], since: float, until: float, columns: int) -> str:
    """Draw the mean of each interval, one a column, scaled from 0; blank without points."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for at, value in points:
        if since <= at <= until:
            values[min(columns - 1, int((at - since) / (until - since) * columns))].append(value)
    means = {column: sum(each) / len(each) for column, each in values.items()}
    highest = max(means.values(), default=0.0)
    return "".join(
        _level(means[column], highest) if column in means else " " for column in range(columns)
    )


def _level(value: float, highest: float) -> str:
    share = value / highest if highest > 0 else 0.0
    return LEVELS[max(0, min(len(LEVELS) - 1, round(share * len(LEVELS) - 1)))]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a stacked bar; the glyph distinguishes it without colours."""

    label: str
    amount: float
    glyph: str
    style: str


def stacked_bar(parts: Iterable[Part], whole: float, columns: int) -> Text:
    """Draw the parts of `whole` next to each other, and the rest as free.

    The first part has a column however small it is; later ones must not seem to be it.
    """
    bar = Text()
    amount = 0.0
    for part in parts:
        amount += part.amount
        end = round(min(1.0, amount / whole) * columns) if whole > 0 else 0
        end = max(end, 1 if 0 < amount == part.amount else 0)
        bar.append(part.glyph * (end - len(bar)), part.style)
    return bar.append(FREE * (columns - len(bar)), "dim")
