"""What would keep Claude Code and other clients from this server: their variables, proxies, and settings files that overrule.

In Claude Code (2.1.330, observed 2026-11) the `env` of a settings file comes before the shell's variables.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, Level, ok, red, warning
from pensieve.untrusted_json import read_json

EVAL = 'eval "$(pensieve env)"'
HERE = frozenset({"localhost", "127.0.0.1", "::1"})
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
VERSION_S = 20
MANAGED = {
    "darwin": Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
    "linux": Path("/etc/claude-code/managed-settings.json"),
}


def check(patient: DoctorContext, managed: Path | None = None) -> Iterator[Finding]:
    """Variables of this shell, proxies, Claude Code and its settings files."""
    yield _base_url(patient)
    yield from _keys(patient)
    yield from _proxies(patient)
    claude = shutil.which("claude", path=patient.environ.get("PATH"))
    if claude is None:
        yield ok("claude code", "not installed; pensieve does without")
    else:
        yield ok("claude code", _version(claude))
    conflicts = list(_settings_files(patient, managed or MANAGED.get(sys.platform)))
    yield from conflicts or [ok("its settings", "no settings file overrules pensieve's variables")]


def _base_url(patient: DoctorContext) -> Finding:
    url = patient.environ.get("ANTHROPIC_BASE_URL", "")
    if not url:
        return ok("base url", f"not set in this shell; to set it: {EVAL}")
    if trouble := _trouble_with(url, patient):
        return Finding("base url", trouble[0], f"ANTHROPIC_BASE_URL {trouble[1]}", EVAL)
    return ok("base url", "ANTHROPIC_BASE_URL points here")


def _trouble_with(url: str, patient: DoctorContext) -> tuple[Level, str] | None:
    """What is wrong with an address for clients, and how much. Only its host is repeated: an address can hold a password."""
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port or 80
    except ValueError:
        return "red", "is not an address"
    ours = patient.record.port if patient.record else patient.settings.port
    if host not in HERE | {patient.settings.host} or port != ours:
        return "warning", f"points to {host}:{port}, not to this pensieve (port {ours})"
    if address.path.rstrip("/").endswith("/v1"):
        return "red", "ends in /v1, which clients put there themselves: they would ask for /v1/v1"
    return None


def _keys(patient: DoctorContext) -> Iterator[Finding]:
    """A key of the hosted API in this shell would be sent along, and Claude Code asks about it."""
    for name in KEYS:
        value = patient.environ.get(name, "")
        if not value:
            continue
        if value == patient.settings.api_key:
            yield ok("client key", f"{name} is this server's")
            continue
        what = "a key of the hosted API" if value.startswith("sk-ant-") else "not this server's key"
        text = f"{name} is {what}: clients of this shell would send it here, and be refused"
        yield warning("client key", text, EVAL)


def _proxies(patient: DoctorContext) -> Iterator[Finding]:
    """Clients that honour a proxy would ask it for 127.0.0.1."""
    environ = patient.environ
    named = [name for name in PROXIES if environ.get(name)]
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if named and not any(host in excepted for host in ("127.0.0.1", "*")):
        text = f"{named[0]} is set, and NO_PROXY does not except 127.0.0.1: some clients would ask the proxy"
        hosts = ",".join(filter(None, ("127.0.0.1,localhost", excepted)))
        yield warning("proxy", text, f"export NO_PROXY={shlex.quote(hosts)}")


def _settings_files(patient: DoctorContext, managed: Path | None) -> Iterator[Finding]:
    config = Path(patient.environ.get("CLAUDE_CONFIG_DIR") or patient.home / ".claude")
    here = patient.working_folder / ".claude"
    files = [config / "settings.json", here / "settings.json", here / "settings.local.json"]
    for file in dict.fromkeys(files + ([managed] if managed else [])):
        yield from _settings_file(file, patient)


def _settings_file(file: Path, patient: DoctorContext) -> Iterator[Finding]:
    try:
        found = _mapping(read_json(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield warning(
            "its settings", f"{file} cannot be read as JSON, so what it overrules is not known"
        )
        return
    variables = _mapping(found.get("env"))
    fix = f'Take it out of the "env" of {file}'
    if trouble := _overruled_address(variables, patient):
        yield red(
            "its settings",
            f"{file}: ANTHROPIC_BASE_URL {trouble}, and comes before pensieve's",
            fix,
        )
    others = [name for name in variables if _is_overruled(name, str(variables[name]), patient)]
    if others:
        text = f"{file}: sets {', '.join(sorted(others))}, which comes before pensieve's"
        yield warning("its settings", text, fix)
    if found.get("apiKeyHelper"):
        text = f"{file}: apiKeyHelper makes a key of its own, which this server does not know"
        yield warning("its settings", text, f"Take apiKeyHelper out of {file}")


def _mapping(stored: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", stored) if isinstance(stored, dict) else {}


def _overruled_address(variables: Mapping[str, object], patient: DoctorContext) -> str:
    url = variables.get("ANTHROPIC_BASE_URL")
    trouble = _trouble_with(str(url), patient) if url else None
    return trouble[1] if trouble else ""


def _is_overruled(name: str, value: str, patient: DoctorContext) -> bool:
    if name == "ANTHROPIC_BASE_URL" or not name.startswith(("ANTHROPIC_", "CLAUDE_CODE_USE_")):
        return False
    served = patient.record.model if patient.record else patient.settings.model
    return value not in {served, patient.settings.api_key, ""}


def _version(claude: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 -- the user's own claude
            [claude, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=False
        )
        if version := done.stdout.strip().partition("\n")[0]:
            return version
    return f"{claude} does not tell its version"
