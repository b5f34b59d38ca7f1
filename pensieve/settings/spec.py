"""The table of settings: for each key its name, allowed values and how it is read from text.

It knows neither where values come from (resolve.py) nor how a file of them is written
(config_file.py).
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pensieve.errors import SettingsError

Value = str | int | float | bool

# Larger numbers are never sensible and may exceed a float.
MAX_NUMBER = 2**63
# The longest path (PATH_MAX on Linux; 1024 on macOS).
MAX_NAME_CHARS = 4096
# A refused value is truncated to this in the error.
MAX_SHOWN_CHARS = 80
_NO_NAME = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# No wildcards: the owner of a domain can rebind any of its names to this machine.
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\]", re.ASCII | re.IGNORECASE)
# Schemes of browsers' own cannot be rebound, and some programs choose their names at random.
_ORIGIN = re.compile(
    r"(?!https?:)[a-z][a-z0-9+.-]*://\*|"
    r"[a-z][a-z0-9+.-]*://([a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:]+\])(:[0-9]{1,5})?",
    re.ASCII | re.IGNORECASE,
)
# As ssh takes it: a name or an address, or a name of ~/.ssh/config; never an option.
_SSH_HOST = re.compile(
    r"([a-z0-9_][a-z0-9._-]*@)?[a-z0-9_:][a-z0-9._:%-]{0,251}", re.IGNORECASE | re.ASCII
)
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """One setting: its purpose, its allowed values for people, and the check of a value."""

    name: str
    about: str
    expected: str
    example: str  # one allowed value as it is typed
    kind: type[Value]
    accepts: Callable[[Any], bool] = lambda _: True
    is_secret: bool = False
    unset: str = "by the machine"  # what decides where the setting has no value

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"PENSIEVE_{self.name.upper()}"

    @property
    def allowed(self) -> str:
        """The allowed values, with the example unless `expected` contains it."""
        such_as = "" if self.example in self.expected else f", such as {self.example}"
        return f"{self.expected}{such_as}"

    def checked(self, value: object, where: str) -> Value:
        """Return `value`, found at `where`, as this setting's kind. Raises `SettingsError` if
        not allowed.
        """
        if self.kind is float and type(value) is int and abs(value) < MAX_NUMBER:
            value = float(value)
        if type(value) is self.kind and self.accepts(value):
            return value
        raise self._refusal(value, where)

    def read(self, text: str, where: str) -> Value:
        """Parse `text`, found at `where`. Raises `SettingsError` if it is not allowed."""
        try:
            value = TRUTHS[text.lower()] if self.kind is bool else self.kind(text)
        except (ValueError, KeyError):
            raise self._refusal(text, where) from None
        return self.checked(value, where)

    def _refusal(self, value: object, where: str) -> SettingsError:
        """Describe the refused value unless it is secret."""
        if self.is_secret:
            hint = f'A good one: export {self.variable}="$(openssl rand -hex 32)"'
            return SettingsError(f"{where} cannot be used; it can be {self.expected}.", hint=hint)
        text = shortened(as_typed(value) if isinstance(value, float) else repr(value))
        return SettingsError(f"{where} is {text}; it can be {self.allowed}.")


def as_typed(value: Value) -> str:
    """Return a value as it is written in the configuration file and on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def shortened(text: str) -> str:
    """Truncate `text` for an error message."""
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _is_name(text: str) -> bool:
    """Refuse lone surrogates too: non-UTF-8 bytes of arguments become those, and they cannot be
    stored.
    """
    return 0 < len(text) <= MAX_NAME_CHARS and not _NO_NAME.search(text)


def _are(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    """Return a check that every entry of a comma-separated list matches `pattern`."""

    def accepts(text: str) -> bool:
        return all(pattern.fullmatch(entry.strip()) for entry in text.split(","))

    return accepts


def _is_header_value(text: str) -> bool:
    return bool(text) and all("!" <= char <= "~" for char in text)


def _is_command(text: str) -> bool:
    try:
        return _is_name(text) and bool(shlex.split(text))
    except ValueError:  # of an open quote
        return False


def _is_amount(number: float) -> bool:
    return 0 < number < 1e6


def _is_amount_or_none(number: float) -> bool:
    return number == 0 or _is_amount(number)


OR_NONE = "a number of GB below 1000000, 0 for none"
BY_THE_MODEL = "by the model"
MINUTES = "a number of minutes below 1000000, 0 for never"


def _is_share(number: float) -> bool:
    return 0 <= number <= 1


def _is_some_share(number: float) -> bool:
    return 0 < number <= 1


def _is_count(number: int) -> bool:
    return 0 <= number < MAX_NUMBER


def _is_up_to_2(number: float) -> bool:
    return 0 <= number <= 2


def _is_penalty(number: float) -> bool:
    return 0 < number <= 2


# Sampling of tokens: a model's makers recommend values, and requests can set them.
_SAMPLING = (
    SettingSpec(
        "temperature",
        "how freely tokens are drawn, 0 for the likeliest",
        "a number from 0 to 2",
        "0.7",
        float,
        _is_up_to_2,
        unset=BY_THE_MODEL,
    ),
    SettingSpec(
        "top_p",
        "draw from the likeliest tokens of this probability",
        "a number above 0, up to 1",
        "0.95",
        float,
        _is_some_share,
        unset=BY_THE_MODEL,
    ),
    SettingSpec(
        "top_k",
        "draw from this many of the likeliest tokens, 0 for all",
        "a whole number from 0 up",
        "40",
        int,
        _is_count,
        unset=BY_THE_MODEL,
    ),
    SettingSpec(
        "min_p",
        "drop tokens below this share of the likeliest one",
        "a number from 0 to 1",
        "0.05",
        float,
        _is_share,
        unset=BY_THE_MODEL,
    ),
    SettingSpec(
        "repetition_penalty",
        "how much less likely recent tokens become, 1 for none",
        "a number above 0, up to 2",
        "1.1",
        float,
        _is_penalty,
        unset=BY_THE_MODEL,
    ),
)

_TABLE = (
    SettingSpec(
        "model",
        "model to serve",
        "a name, a repository, a folder, auto or auto:fast",
        "phi-3-mini",
        str,
        _is_name,
    ),
    SettingSpec(
        "device", "where MLX computes", "'gpu' or 'cpu'", "gpu", str, {"gpu", "cpu"}.__contains__
    ),
    SettingSpec(
        "host", "address to listen on", "an address of this machine", "127.0.0.1", str, _is_name
    ),
    SettingSpec(
        "port",
        "port to listen on",
        "a number from 1 to 65535",
        "8080",
        int,
        range(1, 65536).__contains__,
    ),
    SettingSpec(
        "api_key",
        "key that clients send",
        "printable ASCII without blanks",
        "",
        str,
        _is_header_value,
        is_secret=True,
    ),
    SettingSpec(
        "require_key",
        "whether clients need the key",
        "'auto', 'on' or 'off'",
        "auto",
        str,
        {"auto", "on", "off"}.__contains__,
    ),
    SettingSpec(
        "allowed_hosts",
        "further names that clients may call this server",
        "names without ports, with commas between: host.docker.internal",
        "host.docker.internal",
        str,
        _are(_HOST),
        unset="off",
    ),
    SettingSpec(
        "allowed_origins",
        "web pages that may send requests",
        "origins with commas between: http://localhost:3000, vscode-webview://*",
        "http://localhost:3000",
        str,
        _are(_ORIGIN),
        unset="off",
    ),
    SettingSpec(
        "hosts",
        "machines that run the model, by ssh",
        "names as ssh takes them, with commas between: studio.local",
        "studio.local",
        str,
        _are(_SSH_HOST),
        unset="this machine",
    ),
    SettingSpec(
        "replicas", "whether each of several hosts runs the model", "true or false", "true", bool
    ),
    SettingSpec(
        "hostfile",
        "file of the machines that share one model",
        "a file in mlx.launch's format",
        "~/two-macs.json",
        str,
        _is_name,
        unset="off",
    ),
    SettingSpec(
        "workers",
        "engines with the whole model on this machine",
        "a number from 1 to 16",
        "2",
        int,
        range(1, 17).__contains__,
        unset="one",
    ),
    SettingSpec(
        "ssh_command",
        "how ssh is started",
        "a command with its options",
        "ssh -p 2222",
        str,
        _is_command,
        unset="ssh",
    ),
    SettingSpec(
        "tls_certificate",
        "certificate for https, with its chain",
        "a file in PEM",
        "~/studio.pem",
        str,
        _is_name,
        unset="off",
    ),
    SettingSpec(
        "tls_key",
        "private key of the certificate",
        "a file in PEM",
        "~/studio-key.pem",
        str,
        _is_name,
        unset="off",
    ),
    SettingSpec(
        "tls_ca",
        "authority that clients of an https server trust",
        "a file in PEM, or system",
        "~/ca.pem",
        str,
        _is_name,
        unset="off",
    ),
    SettingSpec(
        "memory_gb",
        "memory for the model and its caches",
        "a number of GB above 0, below 1000000",
        "16",
        float,
        _is_amount,
    ),
    SettingSpec("kv_bits", "bits of the KV cache", "16, 8 or 4", "8", int, {16, 8, 4}.__contains__),
    SettingSpec("cache_gb", "disk for cached prompts", OR_NONE, "20", float, _is_amount_or_none),
    SettingSpec(
        "daily_write_gb", "limit of writes to it per day", OR_NONE, "20", float, _is_amount_or_none
    ),
    SettingSpec(
        "thinking",
        "whether Claude Code has the model think",
        "'on', 'off' or 'auto'",
        "auto",
        str,
        {"on", "off", "auto"}.__contains__,
    ),
    SettingSpec(
        "speculation",
        "verify several likely tokens per step",
        "'auto' or 'off'",
        "off",
        str,
        {"auto", "off"}.__contains__,
    ),
    SettingSpec(
        "pictures",
        "read pictures where the model sees them",
        "'auto' or 'off'",
        "off",
        str,
        {"auto", "off"}.__contains__,
    ),
    SettingSpec(
        "picture_tokens",
        "most tokens of a picture, which is scaled down to them",
        "a number from 64 to 16384",
        "2048",
        int,
        range(64, 16385).__contains__,
    ),
    SettingSpec("wired", "keep the model's memory wired", "true or false", "true", bool),
    *_SAMPLING,
    SettingSpec("idle_unload", "unload without work for", MINUTES, "60", float, _is_amount_or_none),
    SettingSpec(
        "log_format",
        "how the log is written",
        "'text' or 'json'",
        "json",
        str,
        {"text", "json"}.__contains__,
    ),
    SettingSpec("show_content", "last texts in /activity/history", "true or false", "true", bool),
    SettingSpec("keep_awake", "no sleep during work (Mac)", "true or false", "true", bool),
)

KEYS: Mapping[str, SettingSpec] = {key.name: key for key in _TABLE}
SAMPLING_KEYS: Mapping[str, SettingSpec] = {key.name: key for key in _SAMPLING}
