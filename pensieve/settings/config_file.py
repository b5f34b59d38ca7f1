"""The configuration file: TOML, one `key = value` a line; read whole, and changed line by line so that comments stay.

It knows which keys there are; which of several places counts is resolve.py's to say.
"""

import re
import shlex
from pathlib import Path

from pensieve.atomic_files import write_atomically
from pensieve.errors import NotWritableError, SettingsError
from pensieve.private_files import make_missing
from pensieve.settings.spec import KEYS, SettingSpec, Value

MAX_BYTES = 2**20
BROKEN = ".broken"
OTHERS = 0o077
# Python reads no longer ones.
_LONG_NUMBER = re.compile(r"[0-9_]{4301,}", re.ASCII)


def read(file: Path) -> dict[str, Value]:
    """What the file sets; nothing where there is none.

    Raises `SettingsError` with the line where it is no TOML, holds an unknown key, or a value that cannot be.
    """
    text = _text(file)
    found: dict[str, Value] = {}
    for name, value in _decoded(file, text).items():
        place = _place(file, text, name)
        found[name] = key_of(name, f"{place}: ").checked(value, f"{place}: {name}")
    if any(KEYS[name].is_secret for name in found) and file.stat().st_mode & OTHERS:
        raise SettingsError(
            f"{file} holds a key, and other users can read it.",
            hint=f"Make it yours alone:\n  chmod 600 {shlex.quote(str(file))}",
        )
    return found


def key_of(name: str, where: str = "") -> SettingSpec:
    """The key of this name. Raises `SettingsError` with the nearest one where there is none."""
    if key := KEYS.get(name):
        return key
    import difflib

    near = difflib.get_close_matches(name.replace("-", "_"), KEYS, n=1)
    meant = f' Did you mean "{near[0]}"?' if near else ""
    raise SettingsError(
        f'{where}There is no setting "{name}".{meant}',
        hint="See them all:\n  pensieve config list",
    )


def write(file: Path, name: str, value: Value | None) -> None:
    """Set `name` in the file, or take it out where `value` is None; every other line stays as it is.

    Raises `SettingsError` where the file is broken already, `NotWritableError` where it cannot be written.
    """
    values = read(file)
    wanted = {key: each for key, each in {**values, name: value}.items() if each is not None}
    text = _changed(_text(file), name, value)
    if not _means(text, wanted):
        raise SettingsError(
            f"{file} sets {name} in a way that is not changed from here.",
            hint="Change it there, in an editor.",
        )
    _save(file, text)


def back_up(file: Path) -> Path | None:
    """Rename the file, so that the defaults hold; its new name, None where there was none."""
    kept = file.with_name(file.name + BROKEN)
    try:
        return file.replace(kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotWritableError(f"The file {file} cannot be renamed: {error.strerror}.") from error


def _text(file: Path) -> str:
    """TOML is UTF-8; a byte that is not is refused as a broken line, not shown."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise _broken(file, "is larger than a configuration file can be")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _broken(file, f"is not UTF-8 (at line {line})") from error


def _decoded(file: Path, text: str) -> dict[str, object]:
    if not text:
        return {}
    import tomllib  # what a shell waits for at its start does without, where there is no file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = text.count("\n") + 1
        why = str(error).replace("at end of document", f"at line {last}, the end")
        raise _broken(file, f"is not TOML: {why}") from error
    except RecursionError as error:
        raise _broken(file, "is nested too deeply (at line 1)") from error
    except ValueError as error:
        raise _broken(file, _impossible_number(text)) from error


def _impossible_number(text: str) -> str:
    """Name the line with a number of more digits than Python reads; tomllib does not say where."""
    number = _LONG_NUMBER.search(text)
    line = text.count("\n", 0, number.start()) + 1 if number else 1
    return f"holds a value that cannot be read (at line {line})"


def _means(text: str, values: dict[str, Value]) -> bool:
    """False too where a line was of a kind that is not changed line by line, and no TOML is left."""
    import tomllib

    try:
        return tomllib.loads(text) == values
    except ValueError:
        return False


def _broken(file: Path, why: str) -> SettingsError:
    return SettingsError(
        f"{file} {why}.",
        hint="Correct it, or put it aside and start on the defaults:\n  pensieve config reset",
    )


def _setting(name: str) -> re.Pattern[str]:
    """A line that sets `name`: up to the value, the value, and what follows it."""
    start = rf"""\s*(?:{re.escape(name)}|"{re.escape(name)}")\s*=\s*"""
    return re.compile(rf"""({start})("(?:[^"\\]|\\.)*"|'[^']*'|[^#\s]+)(.*)""")


def _line_of(text: str, pattern: re.Pattern[str]) -> int | None:
    """The number, from 0, of the first line that begins so."""
    lines = enumerate(text.splitlines())
    return next((number for number, line in lines if pattern.match(line)), None)


def _place(file: Path, text: str, name: str) -> str:
    """Where `name` stands, as a key or as the name of a table."""
    line = _line_of(text, re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}\b"""))
    return str(file) if line is None else f"{file}, line {line + 1}"


def _changed(text: str, name: str, value: Value | None) -> str:
    lines = text.splitlines()
    at = _line_of(text, _setting(name))
    if value is None:
        lines = [line for number, line in enumerate(lines) if number != at]
    elif at is None:
        lines.append(f"{name} = {_literal(value)}")
    else:
        lines[at] = _setting(name).sub(
            lambda found: f"{found[1]}{_literal(value)}{found[3]}", lines[at]
        )
    return "".join(f"{line}\n" for line in lines)


def _literal(value: Value) -> str:
    """As TOML writes it. Text holds no control character, so only the quote and the backslash need care."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else f"{value:.12g}"


def _save(file: Path, text: str) -> None:
    try:
        make_missing(file.parent)
        # A locale that is not UTF-8 hands over bytes as surrogates.
        write_atomically(file, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise NotWritableError(f"The file {file} cannot be written: {error.strerror}.") from error
