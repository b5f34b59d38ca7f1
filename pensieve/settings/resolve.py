"""Settings: a frozen value resolved once from flags, environment, configuration file and defaults.

The only module that reads the environment. It knows no machine: None means that the machine or the
model decides.
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
from pensieve.settings.spec import KEYS, SAMPLING_KEYS, Value, as_typed

Device = Literal["gpu", "cpu"]
KVBits = Literal[16, 8, 4]
ThinkingMode = Literal["on", "off", "auto"]
KeyRequirement = Literal["auto", "on", "off"]
SpeculationMode = Literal["auto", "off"]
PictureMode = Literal["auto", "off"]
LogFormat = Literal["text", "json"]

DEFAULT_MODEL = "phi-3-mini"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7777
DEFAULT_API_KEY = "pensieve-local-key"
DEFAULT_IDLE_UNLOAD_MIN = 30.0
# 1.3 million pixels with Qwen3.5, of which a screenshot of a large screen has eight.
DEFAULT_PICTURE_TOKENS = 1280
STRONG_KEY_BITS = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run. None: decided by the machine or by the model."""

    paths: Paths
    model: str = DEFAULT_MODEL
    device: Device | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_key: str = DEFAULT_API_KEY
    require_key: KeyRequirement = "auto"  # auto: not the default key, from this machine
    allowed_hosts: str = ""
    allowed_origins: str = ""
    hosts: str = ""  # machines that run the model, by ssh, with commas between; empty: this one
    replicas: bool = False  # each of several hosts runs the whole model
    hostfile: str = ""  # of the hosts that share one model, in mlx.launch's format
    workers: int = 1  # that run the whole model on this machine
    ssh_command: str = "ssh"
    # Files in PEM: with both, the server speaks TLS.
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""  # file of the authority that clients trust; "system": those of the system
    memory_gb: float | None = None  # for the model and its caches together
    kv_bits: KVBits | None = None
    cache_gb: float | None = None  # disk space for cached prompts
    daily_write_gb: float | None = None  # GB of cached prompts written per day
    thinking: ThinkingMode = "auto"  # for Claude Code; auto: by the model
    wired: bool = False
    speculation: SpeculationMode = "auto"  # auto: where it pays on the device
    pictures: PictureMode = "auto"  # auto: where the model sees them
    picture_tokens: int = DEFAULT_PICTURE_TOKENS  # of a picture, at most
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    # Minutes without work until the model is unloaded from memory; 0: never.
    idle_unload: float = DEFAULT_IDLE_UNLOAD_MIN
    log_format: LogFormat = "text"
    show_content: bool = False  # the last requests' texts, in memory, at /activity/history
    keep_awake: bool = True  # a Mac does not sleep during work
    is_debug: bool = False
    # Source of each key that is set: the file's path, "environment" or "flag".
    origins: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def base_url(self) -> str:
        """The server's address, without a trailing slash and without /v1."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate or self.tls_ca else 'http'}://{host}:{self.port}"

    @property
    def remote_hosts(self) -> tuple[str, ...]:
        """The machines that run the model; empty: this one alone."""
        return tuple(entry for part in self.hosts.split(",") if (entry := part.strip()))

    @property
    def other_hosts(self) -> tuple[str, ...]:
        """The hosts that are reached by ssh."""
        return tuple(host for host in self.remote_hosts if host != LOCAL)

    @property
    def sampling(self) -> dict[str, float]:
        """The set ones of `SAMPLING_KEYS`."""
        values = {name: getattr(self, name) for name in SAMPLING_KEYS}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Flags:
    """Settings from the command line; None for options that are absent."""

    model: str | None = None
    device: Device | None = None
    host: str | None = None
    port: int | None = None
    idle_unload: float | None = None
    speculation: SpeculationMode | None = None
    require_key: KeyRequirement | None = None
    log_format: LogFormat | None = None
    show_content: bool | None = None
    hosts: str | None = None
    replicas: bool | None = None
    hostfile: str | None = None
    workers: int | None = None

    def given(self) -> dict[str, Value]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def as_arguments(self) -> list[str]:
        """Return the options of `pensieve start` that give these flags."""
        options = {f"--{name.replace('_', '-')}": value for name, value in self.given().items()}
        return [part for name, value in options.items() for part in _as_option(name, value)]


def _as_option(name: str, value: Value) -> list[str]:
    if isinstance(value, bool):
        return [f"{name}={as_typed(value)}"]
    return [name, str(value)]


def resolve(flags: Flags | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Merge by precedence: flag, PENSIEVE_* variable, configuration file, default.

    Raises `SettingsError` if a variable or the file holds a value that is not allowed.
    """
    variables = os.environ if environ is None else environ
    locations = resolve_paths(variables)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, entries in (
        (str(locations.config_file), config_file.read(locations.config_file)),
        ("environment", _read_variables(variables)),
        ("flag", (flags or Flags()).given()),
    ):
        values |= entries
        origins |= dict.fromkeys(entries, origin)
    return Settings(locations, is_debug=is_debug_enabled(variables), origins=origins, **values)


def resolve_paths(environ: Mapping[str, str] | None = None) -> Paths:
    """Resolve only the file locations, which works even when other settings are wrong."""
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


def is_debug_enabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether PENSIEVE_DEBUG asks for tracebacks; works even when other settings are wrong."""
    return _is_on("PENSIEVE_DEBUG", environ)


def is_quiet(environ: Mapping[str, str] | None = None) -> bool:
    """Whether PENSIEVE_QUIET asks for data and errors only."""
    return _is_on("PENSIEVE_QUIET", environ)


def is_colour_enabled(*, is_terminal: bool, environ: Mapping[str, str] | None = None) -> bool:
    """Decide by precedence: NO_COLOR, FORCE_COLOR or CLICOLOR_FORCE, then the stream and TERM."""
    variables = os.environ if environ is None else environ
    if variables.get("NO_COLOR"):
        return False
    if _is_on("FORCE_COLOR", environ) or _is_on("CLICOLOR_FORCE", environ):
        return True
    return is_terminal and variables.get("TERM", "") not in {"", "dumb"}


# Among hosts: this machine, without ssh.
LOCAL = "localhost"


def listed(text: str) -> tuple[str, ...]:
    """Split a comma-separated setting into lower-case entries."""
    return tuple(entry for part in text.split(",") if (entry := part.strip().lower()))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_one_plan(settings: Settings) -> None:
    """Raise `SettingsError` if hosts and workers do not go together."""
    hosts = settings.remote_hosts
    if settings.hostfile and (settings.replicas or settings.workers > 1):
        raise SettingsError("A hostfile is for one model over several machines, without replicas.")
    if len(hosts) > 1 and not settings.replicas and not settings.hostfile:
        raise SettingsError(
            "Several hosts either run the whole model each, or share one, with a hostfile that has"
            " the addresses of the cable between them.",
            hint=f"Run it on each:\n  pensieve start --hosts {settings.hosts} --replicas\n"
            "Share one that fits none of them (docs/several-macs.md):\n"
            "  pensieve start --hostfile FILE",
        )
    if settings.workers > 1 and hosts and LOCAL not in hosts:
        raise SettingsError(
            "Workers are engines on this machine, and it is none of the hosts.",
            hint="Have them here as well:\n"
            f"  pensieve start --hosts {LOCAL},{settings.hosts} --replicas"
            f" --workers {settings.workers}",
        )
    if len(set(hosts)) < len(hosts):
        raise SettingsError(
            "A host is named twice.",
            hint="Several engines on this machine:\n  pensieve start --workers 2",
        )


def require_own_key(settings: Settings, *, has_named_keys: bool = False) -> None:
    """Raise `SettingsError` if other machines can reach the server without a strong key.

    Named keys are strong. With them the default key may stay: it is for this machine alone.
    """
    if is_loopback(settings.host):
        return
    if settings.require_key == "off":
        raise SettingsError(
            f"--host {settings.host} lets other machines in, and require_key = off would let them"
            " in without a key.",
            hint="Require the key, or omit --host to serve this machine only:\n"
            f"  pensieve start --host {settings.host} --require-key auto",
        )
    if is_strong(settings.api_key):
        return
    if has_named_keys and settings.api_key == DEFAULT_API_KEY:
        return
    what = "the default key" if settings.api_key == DEFAULT_API_KEY else "a weak key"
    raise SettingsError(
        f"--host {settings.host} lets other machines in, and the server would start with {what}.",
        hint="Create a key of your own, or one for each person, or omit --host to serve this"
        ' machine only:\n  export PENSIEVE_API_KEY="$(openssl rand -hex 32)"\n'
        "  pensieve keys add NAME",
    )


def is_strong(key: str) -> bool:
    """Whether `key` can hold 128 bits: 22 characters of base64 or 32 of hex, with 8 different
    ones.
    """
    alphabets = (string.digits, string.digits + "abcdef", string.ascii_lowercase)
    size = next((len(alphabet) for alphabet in alphabets if set(key) <= set(alphabet)), 64)
    return len(key) * math.log2(size) >= STRONG_KEY_BITS and len(set(key)) >= 8


def homebrew_service(environ: Mapping[str, str] | None = None) -> str:
    """Return launchd's name for this process if it is Homebrew's service; else empty."""
    name = (os.environ if environ is None else environ).get("XPC_SERVICE_NAME", "")
    return name if name.startswith("homebrew.") and name.endswith(".pensieve") else ""


def shell_path(environ: Mapping[str, str] | None = None) -> str:
    """Return the user's login shell from $SHELL; empty if unset."""
    return (os.environ if environ is None else environ).get("SHELL", "")


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `changes`."""
    return {**os.environ, **changes}


def bare_environment() -> dict[str, str]:
    """Return what Python itself may need: nothing that is secret."""
    # The user's packages are in HOME; some Pythons are found by their libraries alone.
    return {name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH") if name in os.environ}


@contextmanager
def variables_set(changes: Mapping[str, str]) -> Generator[None]:
    """Set variables for this process and the children it starts in the block."""
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
    """Unset variables for this process and the children it starts in the block."""
    removed = {name: value for name in names if (value := os.environ.pop(name, None)) is not None}
    try:
        yield
    finally:
        os.environ.update(removed)


@contextmanager
def environment_restored(changes: Mapping[str, str]) -> Generator[None]:
    """Set `changes` in the block, and restore the whole environment after it."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _read_variables(variables: Mapping[str, str]) -> dict[str, Value]:
    """Read the PENSIEVE_* variables; an empty one counts as unset."""
    return {
        key.name: key.read(text, key.variable)
        for key in KEYS.values()
        if (text := variables.get(key.variable))
    }


def _is_on(name: str, environ: Mapping[str, str] | None) -> bool:
    variables = os.environ if environ is None else environ
    return variables.get(name, "") not in {"", "0"}


def _absolute(text: str | None) -> Path | None:
    """The XDG specification requires programs to ignore relative values."""
    return Path(text) if text and Path(text).is_absolute() else None
