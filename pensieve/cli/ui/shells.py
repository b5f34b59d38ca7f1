"""How each shell, and a .env file, is told of variables. Knows nothing of what the variables mean."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, assert_never

from pensieve.errors import SettingsError

# What no shell reads as more than itself. Not `=`: zsh takes a leading one for a command's path.
PLAIN = re.compile(r"[\w./:@-]+", re.ASCII)
# PowerShell takes typographic quotes for straight ones, in the middle of a string too.
POWERSHELL_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")

Shell = Literal["bash", "zsh", "fish", "sh", "nu", "pwsh"]


def shell_of(path: str) -> Shell:
    """The shell that $SHELL names; any other is taken to speak POSIX sh."""
    match path.rpartition("/")[2]:
        case "bash" | "zsh" | "fish" | "nu" | "pwsh" as shell:
            return shell
        case _:
            return "sh"


def exports(shell: Shell, values: Mapping[str, str]) -> str:
    """What exports them, a line each; for nu, which evaluates no text, a record in its notation.

    Raises `SettingsError` for a value that one line cannot hold.
    """
    lines = [_export(shell, name, value) for name, value in values.items()]
    return "\n".join(["{", *lines, "}"] if shell == "nu" else lines)


def unsets(shell: Shell, names: Iterable[str], restored: Mapping[str, str] | None = None) -> str:
    """After which they are no variables; nothing happens to one that was none. For nu a record.

    restored: what others are to be again; empty takes one away.
    """
    restored = restored or {}
    gone = [*names, *(name for name, value in restored.items() if not value)]
    kept = {name: value for name, value in restored.items() if value}
    unset = [_unset(shell, name) for name in gone]
    exported = [_export(shell, name, value) for name, value in kept.items()]
    if shell == "nu":
        return "\n".join(["{hide: [", *unset, "], load: {", *exported, "}}"])
    return "\n".join([*unset, *exported])


def usage(shell: Shell, words: str = "pensieve env", *, is_unset: bool = False) -> str:
    """The command that has this shell read what `words` print: exports, or what takes them back."""
    match shell:
        case "bash" | "zsh" | "sh":
            return f'eval "$({words})"'
        case "fish":
            return f"{words} | source"
        case "nu" if is_unset:
            return (
                f"{words} | from nuon | do --env"
                " { let them = $in; hide-env --ignore-errors ...$them.hide; load-env $them.load}"
            )
        case "nu":
            return f"{words} | from nuon | load-env"
        case "pwsh":
            return f"{words} | Out-String | Invoke-Expression"
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


def _export(shell: Shell, name: str, value: str) -> str:
    _refuse_controls(name, value)
    match shell:
        case "bash" | "zsh" | "sh":
            return f"export {name}={_posix_quote(value)}"
        case "fish":
            return f"set -gx {name} {_fish_quote(value)}"
        case "nu":
            return f"  {name}: {_nu_quote(value)}"
        case "pwsh":
            return f"$env:{name} = {_powershell_quote(value)}"
        case _:
            assert_never(shell)


def _unset(shell: Shell, name: str) -> str:
    match shell:
        case "bash" | "zsh" | "sh":
            return f"unset {name}"
        case "fish":
            return f"set -e {name}"
        case "nu":
            return f"  {name}"
        case "pwsh":
            return f"$env:{name} = $null"
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


def _nu_quote(value: str) -> str:
    r"""In nu's double quotes only \ and " are special, each after a \. Its single quotes can hold no single quote."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _powershell_quote(value: str) -> str:
    """In PowerShell's single quotes only these are special, and stand for themselves when doubled."""
    return "'" + POWERSHELL_QUOTES.sub(r"\g<0>\g<0>", value) + "'"
