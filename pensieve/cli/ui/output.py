"""The only module that writes to the terminal and reads typed lines; it keeps no state.

Data goes to standard output, everything else to standard error. The chat's line editor
(`cli/chat/editor.py`) draws its own input, on `prompt_stream`. Untrusted text (a server's error, a
folder's name, a setting) is sanitized here for all commands; only `stream` and `status`, used by
the views of answers, pass text through. With NO_COLOR, TERM=dumb or a pipe no escape sequence is
written.
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
from pathlib import Path
from typing import TextIO

from pensieve.errors import NotWritableError, UsageError
from pensieve.settings.resolve import is_colour_enabled, is_quiet
from pensieve.untrusted_text import lines, one_line

DIM = "2"
RED = "1;31"
GREEN = "32"
# For warnings: yellow is hard to read on a light background.
MAGENTA = "35"
MAX_MESSAGE_CHARS = 2000


def prepare() -> None:
    """Print `?` for a character that the terminal's encoding lacks, instead of raising; write
    nothing to a stream that is closed (`>&-`).
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def data(text: str) -> None:
    """Raises `NotWritableError`, as everything does here that writes to standard output, and
    BrokenPipeError.
    """
    with _stdout_errors():
        print(lines(text))


def labelled(text: str, label_chars: int, code: str) -> None:
    """Print like `data`, with the first `label_chars` in colour if colour is allowed."""
    with _stdout_errors():
        print(_in_colour(lines(text[:label_chars]), code) + lines(text[label_chars:]))


def stream(text: str) -> None:
    """Print text that its view has already stripped of terminal control, and flush."""
    with _stdout_errors():
        print(text, end="", flush=True)


def note(text: str) -> None:
    """Print a line to standard error, unless --quiet is given."""
    _note(lines(text))


def hint(text: str) -> None:
    """Print a dim note of minor importance."""
    _note(_styled(lines(text), DIM))


def rewrite_line(text: str) -> None:
    """Replace the current line of the terminal; an empty text erases it."""
    columns = shutil.get_terminal_size().columns - 1
    visible = _styled(one_line(text)[:columns], DIM) if text else ""
    _write_to_stderr(f"\r\x1b[2K{visible}")


def status(text: str) -> None:
    """Print dim text without a line end, and flush."""
    _write_to_stderr(_styled(text, DIM))


def warning(text: str) -> None:
    _note(f"{_styled('Warning:', MAGENTA)} {lines(text)}")


def failure(message: str, hint: str | None) -> None:
    """Print the error and its fix. A long message is trimmed, to keep the fix visible."""
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}…"
    _print_to_stderr(
        _styled("Error:", RED) + _wrapped(lines(f"Error: {message}")).removeprefix("Error:")
    )
    if hint:
        _print_to_stderr(_wrapped(lines(hint)))


def ask(prompt: str) -> str:
    """Return a typed line. Raises EOFError (Ctrl-D). The prompt stays out of redirected output."""
    prompt = lines(prompt)
    if sys.stdout.isatty():
        with suppress(ImportError):
            importlib.import_module("readline")  # gives `input` line editing and history
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def ask_yes_no(question: str) -> bool:
    """Ask a question whose default is yes; the end of input means no. Needs a terminal."""
    try:
        reply = ask(f"{question} [Y/n] ").strip().lower()
    except EOFError:
        note("")
        return False
    return reply in {"", "y", "yes"}


def confirm(question: str, *, command: str) -> bool:
    """Ask a question whose default is no. Without a terminal, raise `UsageError` with `command`."""
    if not stdin_is_tty():
        raise UsageError(
            f"{question} This needs a terminal to confirm.", hint=f"Confirm with:\n  {command}"
        )
    with suppress(EOFError):
        return ask(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    return False


def piped_text() -> str | None:
    """Return all of standard input; None if it is a terminal or closed."""
    stdin = _stdin()
    if stdin is None or stdin.isatty():
        return None
    return stdin.buffer.read().decode("utf-8", "replace")


def stdin_is_tty() -> bool:
    stdin = _stdin()
    return stdin is not None and stdin.isatty()


def _stdin() -> TextIO | None:
    return sys.stdin  # None if the shell closed it: `<&-`


def stderr_is_tty() -> bool:
    return sys.stderr.isatty()


def can_rewrite_line() -> bool:
    """Return whether a line on standard error can be overwritten."""
    return stderr_is_tty() and can_style() and not is_quiet()


def can_style() -> bool:
    """Return whether standard error may receive escape sequences."""
    return is_colour_enabled(is_terminal=sys.stderr.isatty())


def _in_colour(text: str, code: str) -> str:
    is_wanted = is_colour_enabled(is_terminal=sys.stdout.isatty())
    return f"\x1b[{code}m{text}\x1b[0m" if is_wanted else text


def can_draw() -> bool:
    """Return whether standard output is a terminal that allows redrawing."""
    return sys.stdout.isatty() and is_colour_enabled(is_terminal=True)


def stdout_is_tty() -> bool:
    return sys.stdout.isatty()


def is_interactive() -> bool:
    """Return whether all output is displayed on a terminal, without --quiet."""
    return stdout_is_tty() and stderr_is_tty() and not is_quiet()


def encoding() -> str:
    return sys.stdout.encoding


def size() -> tuple[int, int]:
    """Return columns and lines of the terminal now; the environment's values may be outdated."""
    with suppress(OSError, ValueError):
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        if columns and lines:
            return columns, lines
    assumed = shutil.get_terminal_size()
    return assumed.columns, assumed.lines


def prompt_stream() -> TextIO:
    """Return standard error, or standard output if that is the terminal."""
    return sys.stdout if sys.stdout.isatty() else sys.stderr


@contextmanager
def echo_disabled() -> Generator[None]:
    """Disable echo, so that input does not appear within an answer; the next prompt reads it."""
    if not stdin_is_tty():
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
    """Flush standard output now, so that a closed pipe is noticed here and not at exit."""
    with _stdout_errors():
        sys.stdout.flush()


def discard(stream: TextIO) -> None:
    """Redirect a stream to the null device: its reader closed the pipe, or the disk is full. Python
    writes what it has buffered at exit.
    """
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _stdout_errors() -> Generator[None]:
    """Raise `NotWritableError` if the block cannot write; a closed pipe stays BrokenPipeError."""
    try:
        yield
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise NotWritableError(
            f"The output cannot be written: {error.strerror or error}."
        ) from error


def _note(text: str) -> None:
    if not is_quiet():
        _print_to_stderr(text)


def _print_to_stderr(text: str) -> None:
    """Flush standard output first, to keep the order if both go into one pipe."""
    with suppress(OSError, ValueError):  # reported by the next write to it
        sys.stdout.flush()
    _write_to_stderr(f"{text}\n")


def _write_to_stderr(text: str) -> None:
    """Messages that cannot be written end no command: its result and exit code stay right."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)


def _wrapped(text: str) -> str:
    """Wrap at the terminal's width. Indented lines are commands and stay whole."""
    if not stderr_is_tty():
        return text
    columns = shutil.get_terminal_size().columns - 1
    lines = (
        [line] if line.startswith(" ") else _wrap_line(line, columns) for line in text.splitlines()
    )
    return "\n".join(chain.from_iterable(lines))


def _wrap_line(line: str, columns: int) -> list[str]:
    return textwrap.wrap(line, columns, break_long_words=False, break_on_hyphens=False) or [""]


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if can_style() else text
