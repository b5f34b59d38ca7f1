"""How each shell, and a .env file, is told a variable. Knows nothing of what the variables mean."""

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
    _refuse_controls(name, value)
    match shell:
        case "bash" | "zsh" | "sh":
            return f"export {name}={_posix_quote(value)}"
        case "fish":
            return f"set -gx {name} {_fish_quote(value)}"
        case _:
            assert_never(shell)


def unset(shell: Shell, name: str) -> str:
    """One line after which `name` is no variable; nothing happens where it was none."""
    match shell:
        case "bash" | "zsh" | "sh":
            return f"unset {name}"
        case "fish":
            return f"set -e {name}"
        case _:
            assert_never(shell)


def dotenv(name: str, value: str) -> str:
    """One line of a .env file. Raises `SettingsError` for a value that not all who read such files read alike."""
    _refuse_controls(name, value)
    if PLAIN.fullmatch(value):
        return f"{name}={value}"
    if set(value) & set("'\\$"):
        raise SettingsError(
            f"{name} holds a quote, a backslash or a dollar sign: .env files have no common way to write it.",
            hint="Use the shell's form instead:\n  pensieve env --shell sh",
        )
    return f"{name}='{value}'"


def usage(shell: Shell, words: str = "pensieve env") -> str:
    """The command that has this shell read what `words` print."""
    match shell:
        case "bash" | "zsh" | "sh":
            return f'eval "$({words})"'
        case "fish":
            return f"{words} | source"
        case _:
            assert_never(shell)


def _refuse_controls(name: str, value: str) -> None:
    if any(character < " " or character == "\x7f" for character in value):
        raise SettingsError(f"{name} would hold a control character; no shell is given that.")


def _posix_quote(value: str) -> str:
    """In single quotes nothing is special, not even a backslash; a single quote itself stands outside of them."""
    return value if PLAIN.fullmatch(value) else "'" + value.replace("'", "'\\''") + "'"


def _fish_quote(value: str) -> str:
    r"""In fish's single quotes only \ and ' are special, each after a \."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
