"""The layout of help: usage, description with examples, options in two columns of at most 79.

A cyclopts help formatter (its `HelpFormatter` protocol). The texts are the commands' docstrings.
"""

import textwrap
from typing import Any, Protocol

from pensieve.cli.ui import output

TOPICS = {
    "exit-codes": """\
Exit codes:
    0  success; status: the server is running and ready
    1  the command failed
    2  the command line is invalid
    3  status: the server is not running
    4  status: the server is starting or unhealthy
   65  the model's files are damaged, unsupported or too large
   69  no server answers, a port is taken, or a model cannot be downloaded
   73  a file or folder cannot be written, or the disk is full
   75  the program was replaced while the server ran; restart it
   78  a setting is invalid: a flag, a variable or the configuration file
  130  interrupted by Ctrl-C
  141  the reader of the output closed the pipe
  143  terminated by SIGTERM""",
}

WIDTH = 79
INDENT = "  "
MAX_LABEL_CHARS = 24


# The used part of cyclopts' HelpEntry.
class Entry(Protocol):
    @property
    def display_labels_with_metavar(self) -> tuple[str, ...]: ...

    @property
    def description(self) -> Any: ...


class HelpLayout:
    def render_usage(self, console: object, options: object, usage: object) -> None:
        output.data(f"Usage: {_plain(usage)}\n")

    def render_description(self, console: object, options: object, description: object) -> None:
        output.data(f"{_plain(description)}\n")

    def __call__(self, console: object, options: object, panel: Any) -> None:
        entries = [
            (", ".join(e.display_labels_with_metavar), _plain(e.description)) for e in panel.entries
        ]
        if entries:
            output.data(f"{_plain(panel.title)}:\n{columns(entries)}\n")


def columns(entries: list[tuple[str, str]]) -> str:
    """Return labels with wrapped descriptions next to them, or below a label that is too wide."""
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
    """Accept str, rich's Text, and cyclopts' InlineText around one."""
    plain = getattr(getattr(text, "primary_renderable", text), "plain", text)
    return str(plain).strip("\n")
