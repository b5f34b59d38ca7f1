"""How help is laid out: usage, what the command does with examples, then options in two columns of at most 79.

A cyclopts help formatter (its `HelpFormatter` protocol). What it says comes from the commands' docstrings.
"""

import textwrap
from typing import Any, Protocol

from pensieve.cli.ui import output

TOPICS = {
    "exit-codes": """\
Exit codes:
    0  done; for status: the server runs and is ready
    1  it did not work
    2  the command line is wrong
    3  status: the server does not run
    4  status: the server starts, or is not well
   65  the model's files are damaged, or of a kind or size that is not loaded
   69  no server answers, a port is taken, or a model cannot be fetched
   73  a file or folder cannot be written, or the disk is full
   75  the program was replaced while the server ran: start it again
   78  a setting is wrong: a flag, a variable or the configuration file
  130  ended by Ctrl-C
  141  whoever read the output has left
  143  ended by SIGTERM before it was done""",
}

WIDTH = 79
INDENT = "  "
MAX_LABEL_CHARS = 24


class Entry(Protocol):
    """What is used of cyclopts' HelpEntry."""

    @property
    def display_labels_with_metavar(self) -> tuple[str, ...]:
        """The names of an option or command, with the word for its value."""
        ...

    @property
    def description(self) -> Any:
        """Text, as cyclopts' own kind of it."""
        ...


class HelpLayout:
    """Holds nothing."""

    def render_usage(self, console: object, options: object, usage: object) -> None:
        """The line `Usage: …`."""
        output.data(f"Usage: {_plain(usage)}\n")

    def render_description(self, console: object, options: object, description: object) -> None:
        """The docstring up to its parameters, as it is written."""
        output.data(f"{_plain(description)}\n")

    def __call__(self, console: object, options: object, panel: Any) -> None:
        """One group of options or commands."""
        entries = [
            (", ".join(e.display_labels_with_metavar), _plain(e.description)) for e in panel.entries
        ]
        if entries:
            output.data(f"{_plain(panel.title)}:\n{columns(entries)}\n")


def columns(entries: list[tuple[str, str]]) -> str:
    """Labels left, descriptions right of them and wrapped; below them where a label is too wide."""
    widths = [len(label) for label, _ in entries if len(label) <= MAX_LABEL_CHARS]
    margin = len(INDENT) + max(widths, default=0) + 2
    return "\n".join(_row(label, description, margin) for label, description in entries)


def _row(label: str, description: str, margin: int) -> str:
    lines = textwrap.wrap(" ".join(description.split()), WIDTH - margin)
    start = f"{INDENT}{label}"
    if len(start) + 2 <= margin and lines:
        start = start.ljust(margin) + lines.pop(0)
    return "\n".join([start, *(" " * margin + line for line in lines)])


def _plain(text: object) -> str:
    """cyclopts hands over str, rich's Text, or its own InlineText around one."""
    plain = getattr(getattr(text, "primary_renderable", text), "plain", text)
    return str(plain).strip("\n")
