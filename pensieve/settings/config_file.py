"""The configuration file: TOML with one `key = value` per line.

Read with tomllib, which is quick to import, and changed with tomlkit, which keeps comments and
order. It knows the keys, not the precedence of settings (resolve.py).
"""

import re
import shlex
from pathlib import Path

from pensieve.atomic_files import set_aside, write_atomically
from pensieve.errors import NotWritableError, SettingsError
from pensieve.private_files import make_missing
from pensieve.settings.spec import KEYS, SettingSpec, Value

MAX_BYTES = 2**20
OTHERS = 0o077
# Python refuses to parse longer numbers.
_LONG_NUMBER = re.compile(r"[0-9_]{4301,}", re.ASCII)


def read(file: Path) -> dict[str, Value]:
    """Return the file's settings; empty if there is no file.

    Raises `SettingsError` with the line for invalid TOML, an unknown key or a value that is not
    allowed.
    """
    text = _read_text(file)
    settings: dict[str, Value] = {}
    for name, value in _parse(file, text).items():
        where = _location(file, text, name)
        settings[name] = key_of(name, f"{where}: ").checked(value, f"{where}: {name}")
    if any(KEYS[name].is_secret for name in settings) and file.stat().st_mode & OTHERS:
        raise SettingsError(
            f"{file} holds a key, and other users can read it.",
            hint=f"Make it yours alone:\n  chmod 600 {shlex.quote(str(file))}",
        )
    return settings


def key_of(name: str, where: str = "") -> SettingSpec:
    """Return the key of this name. Raises `SettingsError` that suggests the nearest one."""
    if key := KEYS.get(name):
        return key
    import difflib

    near = difflib.get_close_matches(name.replace("-", "_"), KEYS, n=1)
    suggestion = f' Did you mean "{near[0]}"?' if near else ""
    raise SettingsError(
        f'{where}There is no setting "{name}".{suggestion}',
        hint="See them all:\n  pensieve config list",
    )


def write(file: Path, name: str, value: Value | None) -> None:
    """Set `name` in the file, or remove it if `value` is None; comments and order stay.

    Raises `SettingsError` if the file is invalid, `NotWritableError` if it cannot be written.
    """
    import tomlkit  # slow to import, and needed for changes only

    before = read(file)
    document = tomlkit.parse(_read_text(file))
    if value is not None:
        document[name] = value
    elif name in before:
        document.remove(name)
    _save(file, tomlkit.dumps(document))


def back_up(file: Path) -> Path | None:
    """Rename the file, so that the defaults apply; return its new name, None if there was none."""
    try:
        return set_aside(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotWritableError(f"The file {file} cannot be renamed: {error.strerror}.") from error


def _read_text(file: Path) -> str:
    """Read UTF-8; other bytes are refused with their line, and not shown."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except IsADirectoryError as error:
        raise _broken(file, "is a folder, not a file") from error
    except OSError as error:
        raise _broken(file, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise _broken(file, "is larger than a configuration file can be")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _broken(file, f"is not UTF-8 (at line {line})") from error


def _parse(file: Path, text: str) -> dict[str, object]:
    if not text:
        return {}
    import tomllib  # slow to import: `pensieve env` at a shell's start needs it only with a file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = text.count("\n") + 1
        reason = str(error).replace("at end of document", f"at line {last}, the end")
        raise _broken(file, f"is not TOML: {reason}") from error
    except RecursionError as error:
        raise _broken(file, "is nested too deeply (at line 1)") from error
    except ValueError as error:
        raise _broken(file, _impossible_number(text)) from error


def _impossible_number(text: str) -> str:
    """Name the line of the number with too many digits; tomllib does not report it."""
    number = _LONG_NUMBER.search(text)
    line = text.count("\n", 0, number.start()) + 1 if number else 1
    return f"holds a value that cannot be read (at line {line})"


def _broken(file: Path, problem: str) -> SettingsError:
    return SettingsError(
        f"{file} {problem}.",
        hint="Correct it, or back it up and return to the defaults:\n  pensieve config reset",
    )


def _location(file: Path, text: str, name: str) -> str:
    """Return the file and the line with `name`, as a key or as a table."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}\b""")
    found = (at for at, line in enumerate(text.splitlines(), 1) if pattern.match(line))
    line = next(found, None)
    return str(file) if line is None else f"{file}, line {line}"


def _save(file: Path, text: str) -> None:
    try:
        make_missing(file.parent)
        # With a locale other than UTF-8, arguments hold bytes as surrogates.
        write_atomically(file, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise NotWritableError(f"The file {file} cannot be written: {error.strerror}.") from error
