"""Settings: a frozen value resolved once from flags, environment and defaults.

The only module that reads the environment. It knows no machine: `device=None` means the machine's own.
"""

import ipaddress
import math
import os
import string
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from pensieve import paths
from pensieve.errors import SettingsError
from pensieve.paths import Paths

Device = Literal["gpu", "cpu"]

DEFAULT_MODEL = "phi-3-mini"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7777
DEFAULT_API_KEY = "pensieve-local-key"
STRONG_KEY_BITS = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """What this run of pensieve was asked to do. `device` None: what the machine has."""

    paths: Paths
    model: str = DEFAULT_MODEL
    device: Device | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_key: str = DEFAULT_API_KEY
    is_debug: bool = False
    # What the engine may use; None: chosen for the machine and the model.
    memory_gb: float | None = None
    kv_bits: Literal[16, 8, 4] | None = None
    cache_gb: float | None = None
    daily_write_gb: float | None = None
    wired: bool = False

    @property
    def base_url(self) -> str:
        """Where the server answers, without a trailing slash and without /v1."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given on the command line; None where nothing was."""

    model: str | None = None
    device: Device | None = None
    host: str | None = None
    port: int | None = None


def resolve(flags: Flags | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Flag before PENSIEVE_* variable before default.

    Raises `SettingsError` where a variable holds what its setting cannot be.
    """
    flags = flags or Flags()
    variables = os.environ if environ is None else environ
    return Settings(
        paths=_paths(variables),
        model=flags.model or variables.get("PENSIEVE_MODEL") or DEFAULT_MODEL,
        device=flags.device or _device(variables.get("PENSIEVE_DEVICE")),
        host=flags.host or variables.get("PENSIEVE_HOST") or DEFAULT_HOST,
        port=flags.port if flags.port is not None else _port(variables.get("PENSIEVE_PORT")),
        api_key=_api_key(variables.get("PENSIEVE_API_KEY")),
        is_debug=is_debug_asked(variables),
    )


def is_debug_asked(environ: Mapping[str, str] | None = None) -> bool:
    """Whether PENSIEVE_DEBUG asks for tracebacks; known even where the other settings are wrong."""
    variables = os.environ if environ is None else environ
    return variables.get("PENSIEVE_DEBUG", "") not in {"", "0"}


def is_colour_wanted(*, is_terminal: bool, environ: Mapping[str, str] | None = None) -> bool:
    """NO_COLOR before FORCE_COLOR and CLICOLOR_FORCE, before what the stream and TERM say."""
    variables = os.environ if environ is None else environ
    if variables.get("NO_COLOR"):
        return False
    if any(variables.get(name, "0") not in {"", "0"} for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return is_terminal and variables.get("TERM", "") not in {"", "dumb"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_own_key(settings: Settings) -> None:
    """Raises `SettingsError` where others could reach the server and no strong key of the user's own is set."""
    if is_loopback(settings.host) or is_strong(settings.api_key):
        return
    what = "the default key" if settings.api_key == DEFAULT_API_KEY else "a weak key"
    raise SettingsError(
        f"--host {settings.host} lets other machines in, and the server would start with {what}.",
        hint="Make a key of your own, or leave --host out to serve this machine only:\n"
        '  export PENSIEVE_API_KEY="$(openssl rand -hex 32)"',
    )


def is_strong(key: str) -> bool:
    """Whether `key` can hold 128 bits: 22 characters of base64, 32 of hex; not a few of them over and over."""
    alphabets = (string.digits, string.digits + "abcdef", string.ascii_lowercase)
    size = next((len(letters) for letters in alphabets if set(key) <= set(letters)), 64)
    return len(key) * math.log2(size) >= STRONG_KEY_BITS and len(set(key)) >= 8


def shell_path(environ: Mapping[str, str] | None = None) -> str:
    """The user's login shell as $SHELL names it; empty where it does not."""
    return (os.environ if environ is None else environ).get("SHELL", "")


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `changes`, for a child process."""
    return {**os.environ, **changes}


def _paths(variables: Mapping[str, str]) -> Paths:
    if root := variables.get("PENSIEVE_HOME"):
        return paths.under_home(Path(root).expanduser().absolute())
    home = Path(variables.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return paths.macos(home)
    return paths.xdg(
        home,
        state=_absolute(variables.get("XDG_STATE_HOME")),
        cache=_absolute(variables.get("XDG_CACHE_HOME")),
    )


def _absolute(text: str | None) -> Path | None:
    """The XDG specification tells programs to ignore relative values."""
    return Path(text) if text and Path(text).is_absolute() else None


def _device(text: str | None) -> Device | None:
    if not text:
        return None
    if text not in get_args(Device):
        raise SettingsError(f"PENSIEVE_DEVICE is {text!r}; it can be 'gpu' or 'cpu'.")
    return cast("Device", text)


def _api_key(text: str | None) -> str:
    """A key travels in a header, so it is printable ASCII without blanks. The message does not repeat it."""
    if not text:
        return DEFAULT_API_KEY
    if not all("!" <= character <= "~" for character in text):
        raise SettingsError(
            "PENSIEVE_API_KEY holds a blank, a line end or a character outside ASCII.",
            hint='A good key: export PENSIEVE_API_KEY="$(openssl rand -hex 32)"',
        )
    return text


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"PENSIEVE_PORT is {text!r}; it can be a number from 1 to 65535.")
    return int(text)
