"""How each shell is told a variable. Knows nothing of what the variables mean."""

import re
from typing import Literal, assert_never

from pensieve.errors import SettingsError

# What no shell reads as more than itself. Not `=`: zsh takes a leading one for a command's path.
PLAIN = re.compile(r"[\w./:@-]+", re.ASCII)

Shell = Literal["bash", "zsh", "fish", "sh"]


def shell_of(path: str) -> Shell:
    """The shell that $SHELL names; any other is taken to speak POSIX sh."""
    match path.rpartition("/")[2]:
        case "bash":
            return "bash"
        case "zsh":
            return "zsh"
        case "fish":
            return "fish"
        case _:
            return "sh"


def export(shell: Shell, name: str, value: str) -> str:
    """One line that exports `name`. Raises `SettingsError` for a value that one line cannot hold."""
    if any(character < " " or character == "\x7f" for character in value):
        raise SettingsError(f"{name} would hold a control character; no shell is given that.")
    match shell:
        case "bash" | "zsh" | "sh":
            return f"export {name}={_posix_quote(value)}"
        case "fish":
            return f"set -gx {name} {_fish_quote(value)}"
        case _:
            assert_never(shell)


def usage(shell: Shell) -> str:
    """The command that has this shell read `pensieve env`."""
    match shell:
        case "bash" | "zsh" | "sh":
            return 'eval "$(pensieve env)"'
        case "fish":
            return "pensieve env | source"
        case _:
            assert_never(shell)


def _posix_quote(value: str) -> str:
    """In single quotes nothing is special, not even a backslash; a single quote itself stands outside of them."""
    return value if PLAIN.fullmatch(value) else "'" + value.replace("'", "'\\''") + "'"


def _fish_quote(value: str) -> str:
    r"""In fish's single quotes only \ and ' are special, each after a \."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
