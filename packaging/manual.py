"""Write docs/commands.md and the man page docs/pensieve.1 from the help of the commands.

usage: make docs
The texts are the commands' docstrings; only headings are written here.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Console

from pensieve import errors
from pensieve.cli.app import build_app

DOCS = Path(__file__).parent.parent / "docs"
PROGRAM = "pensieve"

HEAD = """\
# Commands

<!-- Made by `make docs` from the same texts that `--help` shows. -->

What `pensieve COMMAND --help` says, on one page; `man pensieve` has it too.
"""


@dataclass
class Page:
    """The help of one command. cyclopts fills it: it has the interface of a help formatter."""

    words: tuple[str, ...]
    usage: str = ""
    description: str = ""
    groups: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return " ".join((PROGRAM, *self.words))

    @property
    def summary(self) -> str:
        """The first line without its full stop."""
        return self.description.partition("\n")[0].rstrip(".")

    def render_usage(self, console: object, options: object, usage: object) -> None:
        self.usage = _plain(usage).removeprefix("Usage: ")

    def render_description(self, console: object, options: object, description: object) -> None:
        self.description = _plain(description)

    def __call__(self, console: object, options: object, panel: Any) -> None:
        rows = [
            (", ".join(e.display_labels_with_metavar), " ".join(_plain(e.description).split()))
            for e in panel.entries
        ]
        if rows:
            self.groups.append((_plain(panel.title), rows))


def pages() -> list[Page]:
    """Return the program's page, then one for each command by name."""
    return list(_pages(build_app(), ()))


def _pages(app: App, words: tuple[str, ...]) -> Iterator[Page]:
    root = build_app()
    page = Page(words)
    root.help_formatter = page
    root.help_print(list(words), console=Console(file=StringIO()))
    yield page
    for name in sorted(app):
        if not name.startswith("-"):
            yield from _pages(app[name], (*words, name))


def _plain(text: object) -> str:
    """Return plain text of a str, rich's Text, or cyclopts' InlineText around one."""
    plain = getattr(getattr(text, "primary_renderable", text), "plain", text)
    return str(plain).strip("\n")


def passages(text: str) -> Iterator[tuple[bool, str]]:
    """Yield paragraphs and examples (indented lines): whether it is an example, and the text."""
    for block in text.split("\n\n"):
        lines: list[str] = []
        was_example = False
        for line in block.splitlines():
            is_example = line.startswith("  ")
            if lines and is_example != was_example:
                yield was_example, "\n".join(lines)
                lines = []
            lines.append(line)
            was_example = is_example
        if lines:
            yield was_example, "\n".join(lines)


def markdown(all_pages: list[Page]) -> str:
    """Return docs/commands.md."""
    return "\n".join([HEAD, *map(_markdown_section, all_pages)])


def _markdown_section(page: Page) -> str:
    parts = [f"## {page.name}", f"```\n{page.usage}\n```"]
    for is_example, text in passages(page.description):
        parts.append(f"```\n{textwrap.dedent(text)}\n```" if is_example else _literal(text))
    for title, rows in page.groups:
        entries = [
            f"- `{label}`: {_literal(text)}" if text else f"- `{label}`" for label, text in rows
        ]
        parts.append("\n".join([f"{title}:\n", *entries]))
    return "\n\n".join(parts) + "\n"


def _literal(text: str) -> str:
    return text.replace("<", "\\<").replace("*", "\\*")


def roff(all_pages: list[Page]) -> str:
    """Return the man page in the macros of man(7)."""
    root, *commands = all_pages
    lines = [
        '.TH PENSIEVE 1 "" pensieve "User Commands"',
        *(".SH NAME", f"{PROGRAM} \\- {_escaped(root.summary)}"),
        *(".SH SYNOPSIS", f".B {_escaped(root.usage)}"),
        *(".SH DESCRIPTION", *_roff_text(root.description)),
        ".SH COMMANDS",
    ]
    for page in commands:
        lines += [f".SS {_escaped(page.usage)}", *_roff_text(page.description)]
        for _, rows in page.groups:
            lines += _roff_rows(rows)
    lines += [".SH EXIT STATUS", *_roff_rows(exit_codes())]
    return "\n".join(lines) + "\n"


def _roff_text(text: str) -> Iterator[str]:
    for is_example, passage in passages(text):
        if is_example:
            body = textwrap.dedent(passage).splitlines()
            yield from (".PP", ".RS 4", ".nf", *map(_escaped, body), ".fi", ".RE")
        else:
            yield from (".PP", *map(_escaped, passage.splitlines()))


def _roff_rows(rows: list[tuple[str, str]]) -> Iterator[str]:
    for label, text in rows:
        yield from (".TP", f".B {_escaped(label)}")
        if text:
            yield _escaped(text)


def _escaped(text: str) -> str:
    """Escape a line; a leading full stop or apostrophe would make it a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def exit_codes() -> list[tuple[str, str]]:
    """Return exit codes and their meanings, from the docstrings of the errors."""
    meanings: dict[int, list[str]] = {0: ["It is done."], 2: ["The command line is wrong."]}
    for kind in vars(errors).values():
        is_error = isinstance(kind, type) and issubclass(kind, errors.PensieveError)
        if is_error and "exit_code" in vars(kind) and kind.exit_code not in (1, 2):
            meanings.setdefault(kind.exit_code, []).append(
                " ".join((inspect.getdoc(kind) or "").split())
            )
    meanings[1] = ["Anything else that went wrong."]
    meanings[130] = ["Ctrl-C."]
    meanings[143] = ["SIGTERM."]
    return [(str(code), " ".join(meanings[code])) for code in sorted(meanings)]


def files() -> dict[Path, str]:
    """Return the content of each file."""
    all_pages = pages()
    return {DOCS / "commands.md": markdown(all_pages), DOCS / "pensieve.1": roff(all_pages)}


def main() -> int:
    for file, text in files().items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
