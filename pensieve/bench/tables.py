"""Results as Markdown that is readable as plain text, within 79 columns."""

import textwrap
from collections.abc import Iterable, Sequence

from pensieve.bench.result import Figure, Result

WIDTH = 79
# Of a figure, to say that it has changed: the ranges of two runs each miss one another by chance in
# one of three comparisons, of three runs each in one of ten.
MIN_RUNS = 3
# What may differ without a warning: it is measured, not chosen.
_VARIES = ("load", "drafts", "time")


def as_text(result: Result) -> str:
    """Return conditions, figures, and what was left out."""
    rows = [
        (_label(each), _number(each.median), _spread(each), str(len(each.samples)))
        for each in result.figures
    ]
    parts = [
        _conditions(result),
        _table(("figure", "median", "range", "runs"), rows),
        _notes("Left out", result.left_out),
        _notes("Doubtful", result.warnings),
    ]
    return "\n\n".join(part for part in parts if part)


def comparison(before: Result, now: Result) -> str:
    """Return each figure of both with its ratio, and what else differs between the runs."""
    earlier = {(each.name, each.unit): each for each in before.figures}
    pairs = [
        (earlier[key], each) for each in now.figures if (key := (each.name, each.unit)) in earlier
    ]
    rows = [
        (_label(each), _number(old.median), _number(each.median), _verdict(old, each))
        for old, each in pairs
    ]
    table = _table(("figure", "before", "now", "now / before"), rows) if rows else ""
    parts = [
        f"Compared with the run of {before.measured_at}:",
        table or "No figure is in both runs.",
        _notes("Not in both runs", _unmatched(before, now)),
        _notes("The runs differ, so does their speed", differences(before, now)),
    ]
    return "\n\n".join(part for part in parts if part)


def differences(before: Result, now: Result) -> list[str]:
    """Return the conditions that are not the same."""
    names = [name for name in {**before.conditions, **now.conditions} if name not in _VARIES]
    values = [(name, *(each.conditions.get(name) for each in (before, now))) for name in names]
    return [
        f"{name}: {earlier or 'unknown'} -> {later or 'unknown'}"
        for name, earlier, later in values
        if earlier != later
    ]


def _unmatched(before: Result, now: Result) -> list[str]:
    names = [{each.name for each in result.figures} for result in (before, now)]
    return sorted(names[0] ^ names[1])


def _verdict(before: Figure, now: Figure) -> str:
    """Return the ratio, and which is faster if both ran often enough and no ranges overlap."""
    ratio = f"{now.median / before.median:.2f}"
    if min(len(before.samples), len(now.samples)) < MIN_RUNS:
        return f"{ratio}       "
    if max(now.samples) < min(before.samples):
        return f"{ratio} {'faster' if now.is_better_lower else 'slower'}"
    if min(now.samples) > max(before.samples):
        return f"{ratio} {'slower' if now.is_better_lower else 'faster'}"
    return f"{ratio}       "


def _conditions(result: Result) -> str:
    rows = {"measured": result.measured_at, **result.conditions}
    return "\n".join(_wrapped(f"{name}: {value}") for name, value in rows.items() if value)


def _notes(title: str, notes: Iterable[str]) -> str:
    lines = [_wrapped(note) for note in notes]
    return "\n".join([f"{title}:\n", *lines]) if lines else ""


def _wrapped(text: str) -> str:
    """Return an item of a list."""
    lines = textwrap.wrap(
        f"- {text}",
        WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = [
        "-" * (width + 2) if index == 0 else "-" * (width + 1) + ":"
        for index, width in enumerate(widths)
    ]
    lines = [_row(cells, widths) for cells in (heads, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return f"| {' | '.join(padded)} |"


def _label(figure: Figure) -> str:
    return f"{figure.name} ({figure.unit})"


def _spread(figure: Figure) -> str:
    if len(figure.samples) == 1:
        return ""
    return f"{_number(min(figure.samples))} - {_number(max(figure.samples))}"


def _number(value: float) -> str:
    """Return three digits, more only before the point."""
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"
