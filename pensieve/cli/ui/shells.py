"""Variables in the syntax of each shell and of .env files; does not know what they mean."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from pensieve.errors import SettingsError

# Characters without meaning in any shell. Not `=`: zsh expands a leading one to a path.
PLAIN = re.compile(r"[\w./:@-]+", re.ASCII)
# PowerShell treats typographic quotes as straight ones, even within a string.
POWERSHELL_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")

Shell = Literal["bash", "zsh", "fish", "sh", "nu", "pwsh"]


def shell_of(path: str) -> Shell:
    """Return the shell of $SHELL; an unknown one is assumed to speak POSIX sh."""
    match path.rpartition("/")[2]:
        case "bash" | "zsh" | "fish" | "nu" | "pwsh" as shell:
            return shell
        case _:
            return "sh"


# A variable that keeps the value of another one.
@dataclass(frozen=True, slots=True)
class Copy:
    name: str
    source: str
    value: str  # used only where the syntax cannot name the source


def exports(shell: Shell, values: Mapping[str, str], kept: Sequence[Copy] = ()) -> str:
    """Return one export a line; for nu, which evaluates no text, a record.

    kept: copied before the exports. Raises `SettingsError` for a value that one line cannot hold.
    """
    lines = [_copy(shell, each) for each in kept]
    lines += [_export(shell, name, value) for name, value in values.items()]
    return "\n".join(["{", *lines, "}"] if shell == "nu" else lines)


def unsets(
    shell: Shell,
    names: Iterable[str],
    restored: Mapping[str, str] | None = None,
    kept: Sequence[Copy] = (),
) -> str:
    """Return the commands that remove `names`, if set; for nu a record.

    restored: values to set again; an empty one is removed. kept: copies to set again; their
    sources are removed.
    """
    restored = restored or {}
    removed = [*names, *(name for name, value in restored.items() if not value)]
    nonempty = {name: value for name, value in restored.items() if value}
    unset = [_unset(shell, name) for name in removed]
    copied = [_copy(shell, each) for each in kept]
    forgotten = [_unset(shell, each.source) for each in kept]
    exported = [*(_export(shell, name, value) for name, value in nonempty.items()), *copied]
    if shell == "nu":
        return "\n".join(["{hide: [", *unset, *forgotten, "], load: {", *exported, "}}"])
    return "\n".join([*unset, *exported, *forgotten])


def usage(shell: Shell, command: str = "pensieve env", *, is_unset: bool = False) -> str:
    """Return the command by which the shell evaluates the output of `command`."""
    match shell:
        case "bash" | "zsh" | "sh":
            return f'eval "$({command})"'
        case "fish":
            return f"{command} | source"
        case "nu" if is_unset:
            return (
                f"{command} | from nuon | do --env"
                " { let them = $in; hide-env --ignore-errors ...$them.hide; load-env $them.load}"
            )
        case "nu":
            return f"{command} | from nuon | load-env"
        case "pwsh":
            return f"{command} | Out-String | Invoke-Expression"
        case _:
            assert_never(shell)


def dotenv(name: str, value: str) -> str:
    """Return a line of a .env file. Raises `SettingsError` for a value that parsers disagree on."""
    _refuse_controls(name, value)
    if PLAIN.fullmatch(value):
        return f"{name}={value}"
    if set(value) & set("'\\$"):
        raise SettingsError(
            f"{name} holds a quote, a backslash or a dollar sign, which .env files escape in"
            " different ways.",
            hint="Use the shell's format instead:\n  pensieve env --shell sh",
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


def _copy(shell: Shell, copy: Copy) -> str:
    match shell:
        case "bash" | "zsh" | "sh":
            return f'export {copy.name}="${copy.source}"'
        case "fish":
            return f"set -gx {copy.name} ${copy.source}"
        case "nu":
            return _export(shell, copy.name, copy.value)
        case "pwsh":
            return f"$env:{copy.name} = $env:{copy.source}"
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
        raise SettingsError(f"{name} holds a control character, which is not written to a shell.")


def _posix_quote(value: str) -> str:
    """In single quotes nothing is special; a single quote itself must be outside of them."""
    return value if PLAIN.fullmatch(value) else "'" + value.replace("'", "'\\''") + "'"


def _fish_quote(value: str) -> str:
    r"""In fish's single quotes only \ and ' are special, each after a \."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _nu_quote(value: str) -> str:
    r"""In nu's double quotes only \ and " are special, each escaped by a \."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _powershell_quote(value: str) -> str:
    """In PowerShell's single quotes only these are special; doubled, they are literal."""
    return "'" + POWERSHELL_QUOTES.sub(r"\g<0>\g<0>", value) + "'"
