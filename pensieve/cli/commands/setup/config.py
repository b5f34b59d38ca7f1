"""`pensieve config`: shows settings and their origins, and changes them."""

import getpass
import json
from typing import Any, TypedDict

from cyclopts import App

from pensieve.cli.ui import output
from pensieve.daemon.server_record import current, restart_command
from pensieve.errors import UsageError
from pensieve.settings import config_file
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings
from pensieve.settings.spec import KEYS, SettingSpec, Value, as_typed


# One setting in `config list --json`.
class Row(TypedDict):
    value: Value | None
    origin: str


DEFAULT = "default"
REDACTED = "(set)"
NAME_WIDTH = max(map(len, KEYS))

config = App(
    name="config",
    help="""\
Show or change settings.

For example:
  pensieve config list --show-origin
  pensieve config set model phi-3-mini
  pensieve config set api_key            # prompts for it
  pensieve config unset port

Precedence: flag, variable (PENSIEVE_PORT), file, default. A running server
applies a change after a restart.
""",
)


@config.command
def path() -> int:
    """Print the path of the configuration file, even if it does not exist.

    For example:
      "$EDITOR" "$(pensieve config path)"
    """
    output.data(str(settings_module.resolve_paths().config_file))
    return 0


@config.command(name="list")
def list_(*, show_origin: bool = False, json_: bool = False) -> int:
    """Print every setting; keys are redacted.

    For example:
      pensieve config list --show-origin

    Parameters
    ----------
    show_origin
        Show the origin of each: flag, environment, file or default.
    json_
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    if json_:
        output.data(json.dumps({name: _row(KEYS[name], settings) for name in KEYS}, indent=2))
        return 0
    for key in KEYS.values():
        row = _row(key, settings)
        value = _as_text(row["value"]) or f"({key.unset})"
        origin = f"  {row['origin']}" if show_origin else ""
        output.data(
            f"{key.name:<{NAME_WIDTH}}  {value:<{28 if show_origin else 0}}{origin}".rstrip()
        )
    return 0


@config.command
def get(name: str, /, *, show_origin: bool = False) -> int:
    """Print the value of one setting; empty if chosen by the machine.

    For example:
      pensieve config get port

    Parameters
    ----------
    name
        The setting, as `pensieve config list` names it.
    show_origin
        Show its origin too.
    """
    key = config_file.key_of(name)
    settings = settings_module.resolve()
    value = getattr(settings, key.name)
    origin = f"  {settings.origins.get(key.name, DEFAULT)}" if show_origin else ""
    output.data(f"{_as_text(value)}{origin}")
    return 0


@config.command(name="set")
def set_(name: str, value: str | None = None, /) -> int:
    """Set a value in the file. A key is prompted for or read from a pipe.

    For example:
      pensieve config set port 8080
      openssl rand -hex 32 | pensieve config set api_key

    Parameters
    ----------
    name
        The setting, as `pensieve config list` names it.
    value
        The new value.
    """
    key = config_file.key_of(name)
    text = _secret(key, value) if key.is_secret else value
    if text is None:
        raise UsageError(
            f"{key.name} needs a value; it can be {key.allowed}.",
            hint=f"For example:\n  pensieve config set {key.name} {key.example}",
        )
    file = settings_module.resolve_paths().config_file
    config_file.write(file, key.name, key.read(text, key.name))
    output.note(f"{key.name} is set in {file}.")
    _note_effect(key)
    return 0


@config.command
def unset(name: str, /) -> int:
    """Remove a setting from the file, so that its default applies.

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
    _note_effect(key)
    return 0


@config.command
def reset() -> int:
    """Move the file aside, so that all defaults apply.

    For example:
      pensieve config reset
    """
    backup = config_file.back_up(settings_module.resolve_paths().config_file)
    output.note(f"All defaults apply. The file is now {backup}." if backup else "There is no file.")
    return 0


def _row(key: SettingSpec, settings: Settings) -> Row:
    value = getattr(settings, key.name)
    origin = settings.origins.get(key.name, DEFAULT)
    return {"value": REDACTED if key.is_secret and origin != DEFAULT else value, "origin": origin}


def _as_text(value: Value | None) -> str:
    return "" if value is None else as_typed(value)


def _secret(key: SettingSpec, value: str | None) -> str:
    """Refuse the command line: other users can list it and the shell's history keeps it."""
    if value is not None:
        raise UsageError(
            f"{key.name} cannot be set on a command line: other users can see it there.",
            hint="Type it at the prompt, or pipe it in:\n"
            f"  openssl rand -hex 32 | pensieve config set {key.name}",
        )
    piped = output.piped_text()
    return getpass.getpass(f"{key.name}: ") if piped is None else piped.strip()


def _note_effect(key: SettingSpec) -> None:
    settings = settings_module.resolve()
    if settings.origins.get(key.name, DEFAULT) == "environment":
        output.warning(f"{key.variable} is set and overrides the file.")
    if record := current(settings.paths):
        # Its flag would override the new value.
        given: dict[str, Any] = {key.name: getattr(settings, key.name)}
        flags = Flags(**given) if key.name in record.flags else None
        output.note(f"Apply it to the running server:\n  {restart_command(record, flags)}")
