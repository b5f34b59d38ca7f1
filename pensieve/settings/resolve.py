"""Settings: a frozen value resolved once from flags, environment, configuration file and defaults.

The only module that reads the environment. It knows no machine: None means what the machine makes of it.
"""

import ipaddress
import math
import os
import string
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pensieve import paths
from pensieve.errors import SettingsError
from pensieve.paths import Paths
from pensieve.settings import config_file
from pensieve.settings.spec import KEYS, SAMPLING_KEYS, Value

Device = Literal["gpu", "cpu"]
KVBits = Literal[16, 8, 4]
ThinkingMode = Literal["on", "off", "auto"]

DEFAULT_MODEL = "phi-3-mini"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7777
DEFAULT_API_KEY = "pensieve-local-key"
DEFAULT_IDLE_UNLOAD_MIN = 30.0
STRONG_KEY_BITS = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """What this run of pensieve was asked to do. None: decided by the machine or by the model.

    memory_gb: for the model and its caches in all. cache_gb, daily_write_gb: what kept prompts may take on disk, and what
    may be written of them in a day. idle_unload: minutes without work until the model leaves memory;
    0 never. keep_awake: a Mac does not sleep while there is work. origins: where each key that was
    set came from.
    """

    paths: Paths
    model: str = DEFAULT_MODEL
    device: Device | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_key: str = DEFAULT_API_KEY
    allowed_hosts: str = ""
    allowed_origins: str = ""
    memory_gb: float | None = None
    kv_bits: KVBits | None = None
    cache_gb: float | None = None
    daily_write_gb: float | None = None
    thinking: ThinkingMode = "auto"  # for Claude Code; auto: by the model
    wired: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    idle_unload: float = DEFAULT_IDLE_UNLOAD_MIN
    keep_awake: bool = True
    is_debug: bool = False
    origins: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def base_url(self) -> str:
        """Where the server answers, without a trailing slash and without /v1."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def sampling(self) -> dict[str, float]:
        """Those of `SAMPLING_KEYS` that are set."""
        values = {name: getattr(self, name) for name in SAMPLING_KEYS}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given on the command line; None where nothing was."""

    model: str | None = None
    device: Device | None = None
    host: str | None = None
    port: int | None = None
    idle_unload: float | None = None

    def given(self) -> dict[str, str | float]:
        """Those that were given, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def resolve(flags: Flags | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Flag before PENSIEVE_* variable before configuration file before default.

    Raises `SettingsError` where a variable or the file holds what its setting cannot be.
    """
    variables = os.environ if environ is None else environ
    places = resolve_paths(variables)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, found in (
        (str(places.config_file), config_file.read(places.config_file)),
        ("environment", _in_variables(variables)),
        ("flag", (flags or Flags()).given()),
    ):
        values |= found
        origins |= dict.fromkeys(found, origin)
    return Settings(places, is_debug=is_debug_asked(variables), origins=origins, **values)


def resolve_paths(environ: Mapping[str, str] | None = None) -> Paths:
    """Where the files are: all that some commands need, and known even where the settings are wrong."""
    variables = os.environ if environ is None else environ
    if root := variables.get("PENSIEVE_HOME"):
        return paths.under_home(Path(root).expanduser().absolute())
    home = Path(variables.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return paths.macos(home)
    return paths.xdg(
        home,
        state=_absolute(variables.get("XDG_STATE_HOME")),
        cache=_absolute(variables.get("XDG_CACHE_HOME")),
        config=_absolute(variables.get("XDG_CONFIG_HOME")),
    )


def is_debug_asked(environ: Mapping[str, str] | None = None) -> bool:
    """Whether PENSIEVE_DEBUG asks for tracebacks; known even where the other settings are wrong."""
    return _is_on("PENSIEVE_DEBUG", environ)


def is_quiet_asked(environ: Mapping[str, str] | None = None) -> bool:
    """Whether PENSIEVE_QUIET asks for the data and for errors alone."""
    return _is_on("PENSIEVE_QUIET", environ)


def is_colour_wanted(*, is_terminal: bool, environ: Mapping[str, str] | None = None) -> bool:
    """NO_COLOR before FORCE_COLOR and CLICOLOR_FORCE, before what the stream and TERM say."""
    variables = os.environ if environ is None else environ
    if variables.get("NO_COLOR"):
        return False
    if _is_on("FORCE_COLOR", environ) or _is_on("CLICOLOR_FORCE", environ):
        return True
    return is_terminal and variables.get("TERM", "") not in {"", "dumb"}


def listed(text: str) -> tuple[str, ...]:
    """Return the entries of a setting that is a list with commas, in lower case."""
    return tuple(entry for part in text.split(",") if (entry := part.strip().lower()))


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


def homebrew_service(environ: Mapping[str, str] | None = None) -> str:
    """launchd's name for this process where it is Homebrew's service; empty elsewhere."""
    name = (os.environ if environ is None else environ).get("XPC_SERVICE_NAME", "")
    return name if name.startswith("homebrew.") and name.endswith(".pensieve") else ""


def shell_path(environ: Mapping[str, str] | None = None) -> str:
    """The user's login shell as $SHELL names it; empty where it does not."""
    return (os.environ if environ is None else environ).get("SHELL", "")


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `changes`, for a child process."""
    return {**os.environ, **changes}


@contextmanager
def variables_set(changes: Mapping[str, str]) -> Generator[None]:
    """`changes` hold in this process and for the children that it starts, while in the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def variables_without(names: Iterable[str]) -> Generator[None]:
    """The named variables are not set in this process and its children, while in the block."""
    taken = {name: value for name in names if (value := os.environ.pop(name, None)) is not None}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextmanager
def environment_kept(changes: Mapping[str, str]) -> Generator[None]:
    """Restore the whole environment after the block, in which `changes` hold too."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _in_variables(variables: Mapping[str, str]) -> dict[str, Value]:
    """An empty variable sets nothing."""
    return {
        key.name: key.read(text, key.variable)
        for key in KEYS.values()
        if (text := variables.get(key.variable))
    }


def _is_on(name: str, environ: Mapping[str, str] | None) -> bool:
    variables = os.environ if environ is None else environ
    return variables.get(name, "") not in {"", "0"}


def _absolute(text: str | None) -> Path | None:
    """The XDG specification tells programs to ignore relative values."""
    return Path(text) if text and Path(text).is_absolute() else None
