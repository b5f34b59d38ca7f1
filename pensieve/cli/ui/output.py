"""The only file that writes to the terminal and reads a typed line: data on standard output, all else on standard error.

The chat's line editor (`chat/editor.py`) draws what is typed by itself, on the stream that `typing_stream` hands out.

What others chose (a server's error, a folder's name, a config's value) is made safe here, once for all commands; only
`stream` and `murmur`, which the views of answers draw with, pass text as it is.

Keeps nothing between calls. No escape sequence leaves where NO_COLOR, TERM=dumb or a pipe says so.
"""

# ruff: noqa: T201

import importlib
import io
import os
import shutil
import sys
import termios
import textwrap
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TextIO

from pensieve.errors import UsageError
from pensieve.settings.resolve import is_colour_wanted, is_quiet_asked
from pensieve.untrusted_text import lines, one_line

DIM = "2"
RED = "1;31"
GREEN = "32"
# For warnings: yellow is hard to see on a light ground.
MAGENTA = "35"
MAX_MESSAGE_CHARS = 2000


def prepare() -> None:
    """A character that the terminal's encoding lacks becomes `?` instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def data(text: str) -> None:
    """One line or more of what the command was asked for."""
    print(lines(text))


def labelled(text: str, label_chars: int, code: str) -> None:
    """As `data`, its first `label_chars` in colour where that may be."""
    print(_in_colour(lines(text[:label_chars]), code) + lines(text[label_chars:]))


def stream(text: str) -> None:
    """A piece of an answer, which its view has freed of terminal control, or of a drawing; shown at once."""
    print(text, end="", flush=True)


def note(text: str) -> None:
    """A line beside the data; with --quiet there is none."""
    _note(lines(text))


def hint(text: str) -> None:
    """A line beside the data that may be overlooked."""
    _note(_styled(lines(text), DIM))


def rewrite_line(text: str) -> None:
    """The line where the cursor stands on a terminal, written over; empty: as if there had been none."""
    columns = shutil.get_terminal_size().columns - 1
    shown = _styled(one_line(text)[:columns], DIM) if text else ""
    print(f"\r\x1b[2K{shown}", end="", file=sys.stderr, flush=True)


def status(text: str) -> None:
    """A piece of what may be overlooked, shown at once."""
    print(_styled(text, DIM), end="", file=sys.stderr, flush=True)


def warning(text: str) -> None:
    """Something that will not work as it is."""
    _note(f"{_styled('Warning:', MAGENTA)} {lines(text)}")


def failure(message: str, hint: str | None) -> None:
    """What happened, and the way out. A message of any length would hide the way out."""
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}…"
    _say(_styled("Error:", RED) + _wrapped(lines(f"Error: {message}")).removeprefix("Error:"))
    if hint:
        _say(_wrapped(lines(hint)))


def ask(prompt: str) -> str:
    """A typed line. Raises EOFError at its end (Ctrl-D). The prompt is no data: it stays out of a redirected output."""
    prompt = lines(prompt)
    if sys.stdout.isatty():
        with suppress(ImportError):
            importlib.import_module("readline")  # gives `input` line editing and history
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def agrees(question: str) -> bool:
    """Whether the person says yes; Enter does, the end of input does not. For where somebody types."""
    try:
        said = ask(f"{question} [Y/n] ").strip().lower()
    except EOFError:
        note("")
        return False
    return said in {"", "y", "yes"}


def confirm(question: str, *, command: str) -> bool:
    """Whether a person says yes. Raises `UsageError` where nobody is there to be asked: `command` says it for them."""
    if not is_typed():
        raise UsageError(
            f"{question} Nobody is at a terminal to say so.", hint=f"Say yes with:\n  {command}"
        )
    with suppress(EOFError):
        return ask(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    return False


def piped_text() -> str | None:
    """All of standard input where it is no terminal; None where it is, or where it is closed."""
    if is_typed() or sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] -- None under `<&-`
        return None
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def is_typed() -> bool:
    """Whether a person types at standard input."""
    return sys.stdin is not None and sys.stdin.isatty()  # pyright: ignore[reportUnnecessaryComparison]


def is_seen() -> bool:
    """Whether a person sees standard error as it comes."""
    return sys.stderr.isatty()


def is_live() -> bool:
    """Whether a line on standard error may be written over: a person sees it, and escape sequences may go there."""
    return is_seen() and is_styled() and not is_quiet_asked()


def is_styled() -> bool:
    """Whether escape sequences may go to standard error."""
    return is_colour_wanted(is_terminal=sys.stderr.isatty())


def _in_colour(text: str, code: str) -> str:
    is_wanted = is_colour_wanted(is_terminal=sys.stdout.isatty())
    return f"\x1b[{code}m{text}\x1b[0m" if is_wanted else text


def is_drawn() -> bool:
    """Whether standard output is a terminal on which answers may be drawn, and drawn over."""
    return sys.stdout.isatty() and is_colour_wanted(is_terminal=True)


def is_read() -> bool:
    """Whether a person sees standard output as it comes."""
    return sys.stdout.isatty()


def is_watched() -> bool:
    """Whether a person sees all that is written, and wants to."""
    return is_read() and is_seen() and not is_quiet_asked()


def encoding() -> str:
    """The characters that standard output can show."""
    return sys.stdout.encoding


def size() -> tuple[int, int]:
    """Columns and lines of the terminal as they are now, whatever the environment says they were."""
    with suppress(OSError, ValueError):
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        if columns and lines:
            return columns, lines
    assumed = shutil.get_terminal_size()
    return assumed.columns, assumed.lines


def typing_stream() -> TextIO:
    """Where a typed line is shown: beside the data, unless the data goes to the same terminal."""
    return sys.stdout if sys.stdout.isatty() else sys.stderr


@contextmanager
def typing_unseen() -> Generator[None]:
    """What is typed meanwhile is not shown between the lines of an answer; the next prompt gets it."""
    if not is_typed():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def flush() -> None:
    """Write out what is buffered, so that a reader who left is noticed here and not at exit."""
    sys.stdout.flush()


def forget_reader() -> None:
    """Standard output's reader has gone: let the interpreter's last flush go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _note(text: str) -> None:
    """A line that is safe already, unless --quiet wants none."""
    if not is_quiet_asked():
        _say(text)


def _say(text: str) -> None:
    """After the data that came before it, also where both go into one pipe."""
    with suppress(OSError, ValueError, AttributeError):  # no reader any more, or closed
        sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def _wrapped(text: str) -> str:
    """`text` broken between words to the terminal's width. Indented lines are commands and stay whole."""
    if not is_seen():
        return text
    columns = shutil.get_terminal_size().columns - 1
    lines = (
        [line] if line.startswith(" ") else _broken(line, columns) for line in text.splitlines()
    )
    return "\n".join(chain.from_iterable(lines))


def _broken(line: str, columns: int) -> list[str]:
    return textwrap.wrap(line, columns, break_long_words=False, break_on_hyphens=False) or [""]


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if is_styled() else text
