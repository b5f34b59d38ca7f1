"""`pensieve config`: what is set, where that came from, and changing it."""

import getpass
import json
from typing import TypedDict

from cyclopts import App

from pensieve.cli.ui import output
from pensieve.daemon.server_record import current
from pensieve.errors import UsageError
from pensieve.settings import config_file
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings
from pensieve.settings.spec import KEYS, SettingSpec, Value, as_typed


class Row(TypedDict):
    """A setting as `config list --json` has it."""

    value: Value | None
    origin: str


DEFAULT = "default"
REDACTED = "(set)"
NAME_WIDTH = max(map(len, KEYS))

config = App(
    name="config",
    help="""\
Show or change what is set.

For example:
  pensieve config list --show-origin
  pensieve config set model phi-3-mini
  pensieve config set api_key            # asks for it
  pensieve config unset port

A flag comes before a variable (PENSIEVE_PORT), that before the file, that
before the default. A running server takes it up when it is restarted.
""",
)


@config.command
def path() -> int:
    """Print where the file is, whether there is one or not.

    For example:
      "$EDITOR" "$(pensieve config path)"
    """
    output.data(str(settings_module.resolve_paths().config_file))
    return 0


@config.command(name="list")
def list_(*, show_origin: bool = False, json_: bool = False) -> int:
    """Print every setting; a key is not shown.

    For example:
      pensieve config list --show-origin

    Parameters
    ----------
    show_origin
        Show where each came from: flag, environment, the file, or default.
    json_
        As one JSON object.
    """
    settings = settings_module.resolve()
    if json_:
        output.data(json.dumps({name: _row(KEYS[name], settings) for name in KEYS}, indent=2))
        return 0
    for key in KEYS.values():
        row = _row(key, settings)
        value = _written(row["value"]) or f"({key.unset})"
        origin = f"  {row['origin']}" if show_origin else ""
        output.data(
            f"{key.name:<{NAME_WIDTH}}  {value:<{28 if show_origin else 0}}{origin}".rstrip()
        )
    return 0


@config.command
def get(name: str, /, *, show_origin: bool = False) -> int:
    """Print the value of one setting; nothing where the machine decides.

    For example:
      pensieve config get port

    Parameters
    ----------
    name
        The setting, as `pensieve config list` names it.
    show_origin
        Show where it came from too.
    """
    key = config_file.key_of(name)
    settings = settings_module.resolve()
    value = getattr(settings, key.name)
    origin = f"  {settings.origins.get(key.name, DEFAULT)}" if show_origin else ""
    output.data(f"{_written(value)}{origin}")
    return 0


@config.command(name="set")
def set_(name: str, value: str | None = None, /) -> int:
    """Set one in the file. A key is asked for, or read from a pipe.

    For example:
      pensieve config set port 8080
      openssl rand -hex 32 | pensieve config set api_key

    Parameters
    ----------
    name
        The setting, as `pensieve config list` names it.
    value
        What it shall be.
    """
    key = config_file.key_of(name)
    text = _secret(key, value) if key.is_secret else value
    if text is None:
        raise UsageError(
            f"{key.name} is given no value; it can be {key.allowed}.",
            hint=f"For example:\n  pensieve config set {key.name} {key.example}",
        )
    file = settings_module.resolve_paths().config_file
    config_file.write(file, key.name, key.read(text, key.name))
    output.note(f"{key.name} is set in {file}.")
    _note_when_it_holds(key)
    return 0


@config.command
def unset(name: str, /) -> int:
    """Take one out of the file, so that its default holds.

    For example:
      pensieve config unset port

    Parameters
    ----------
    name
        The setting, as `pensieve config list` names it.
    """
    key = config_file.key_of(name)
    file = settings_module.resolve_paths().config_file
    config_file.write(file, key.name, None)
    output.note(f"{key.name} is not set in {file}.")
    _note_when_it_holds(key)
    return 0


@config.command
def reset() -> int:
    """Put the file aside, so that every default holds.

    For example:
      pensieve config reset
    """
    kept = config_file.back_up(settings_module.resolve_paths().config_file)
    output.note(f"The defaults hold; the file is kept as {kept}." if kept else "There is no file.")
    return 0


def _row(key: SettingSpec, settings: Settings) -> Row:
    value = getattr(settings, key.name)
    origin = settings.origins.get(key.name, DEFAULT)
    return {"value": REDACTED if key.is_secret and origin != DEFAULT else value, "origin": origin}


def _written(value: Value | None) -> str:
    return "" if value is None else as_typed(value)


def _secret(key: SettingSpec, value: str | None) -> str:
    """Never of the command line, which other users can list and the shell's history keeps."""
    if value is not None:
        raise UsageError(
            f"{key.name} does not belong on a command line: others can see it there.",
            hint=f"Type it when asked, or pipe it in:\n  openssl rand -hex 32 | pensieve config set {key.name}",
        )
    piped = output.piped_text()
    return getpass.getpass(f"{key.name}: ") if piped is None else piped.strip()


def _note_when_it_holds(key: SettingSpec) -> None:
    settings = settings_module.resolve()
    if settings.origins.get(key.name, DEFAULT) == "environment":
        output.warning(f"{key.variable} is set and comes before the file.")
    if current(settings.paths):
        output.note("The server that runs takes it up with:\n  pensieve restart")
