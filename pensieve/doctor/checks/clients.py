"""Check what keeps Claude Code and other clients of Anthropic's API from this server: variables,
proxies, settings files.

In Claude Code (2.1.330, observed 2026-11) the `env` of a settings file overrides the shell's
variables.
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
VERSION_TIMEOUT_S = 20
MANAGED = {
    "darwin": Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
    "linux": Path("/etc/claude-code/managed-settings.json"),
}


def check(context: DoctorContext, managed: Path | None = None) -> Iterator[Finding]:
    """Check this shell's variables, proxies, Claude Code and its settings files."""
    yield _base_url(context)
    yield from _keys(context)
    yield from _proxies(context)
    claude = shutil.which("claude", path=context.environ.get("PATH"))
    if claude is None:
        yield ok("claude code", "not installed; pensieve does not need it")
    else:
        yield ok("claude code", version_of(claude))
    conflicts = list(_settings_files(context, managed or MANAGED.get(sys.platform)))
    yield from conflicts or [ok("its settings", "no settings file overrides pensieve's variables")]


def _base_url(context: DoctorContext) -> Finding:
    url = context.environ.get("ANTHROPIC_BASE_URL", "")
    if not url:
        return ok("base url", f"not set in this shell; to set it: {EVAL}")
    if problem := _address_problem(url, context):
        return Finding("base url", problem[0], f"ANTHROPIC_BASE_URL {problem[1]}", EVAL)
    return ok("base url", "ANTHROPIC_BASE_URL points here")


def port_of(context: DoctorContext) -> int:
    """Return the port of the running server, else that of the settings."""
    return context.record.port if context.record else context.settings.port


def _address_problem(url: str, context: DoctorContext) -> tuple[Level, str] | None:
    """Return an address's problem for clients and its level. Shows only the host: an address can
    hold a password.
    """
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port or 80
    except ValueError:
        return "red", "is not an address"
    ours = port_of(context)
    if host not in HERE | {context.settings.host} or port != ours:
        return "warning", f"points to {host}:{port}, not to this pensieve (port {ours})"
    if address.path.rstrip("/").endswith("/v1"):
        return "red", "ends in /v1, which clients append themselves: they would request /v1/v1"
    return None


def _keys(context: DoctorContext) -> Iterator[Finding]:
    """Warn about a key of the hosted API: it would be sent here, and Claude Code asks about it."""
    for name in KEYS:
        value = context.environ.get(name, "")
        if not value:
            continue
        if value == context.settings.api_key:
            yield ok("client key", f"{name} is this server's")
            continue
        what = "a key of the hosted API" if value.startswith("sk-ant-") else "not this server's key"
        text = f"{name} is {what}: clients of this shell would send it here and be refused"
        yield warning("client key", text, EVAL)


def _proxies(context: DoctorContext) -> Iterator[Finding]:
    """Warn if clients that honour a proxy would request 127.0.0.1 from it."""
    environ = context.environ
    names = [name for name in PROXIES if environ.get(name)]
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if names and not any(host in exceptions for host in ("127.0.0.1", "*")):
        text = (
            f"{names[0]} is set, and NO_PROXY does not include 127.0.0.1: some clients would ask"
            " the proxy"
        )
        hosts = ",".join(filter(None, ("127.0.0.1,localhost", exceptions)))
        yield warning("proxy", text, f"export NO_PROXY={shlex.quote(hosts)}")


def _settings_files(context: DoctorContext, managed: Path | None) -> Iterator[Finding]:
    config = Path(context.environ.get("CLAUDE_CONFIG_DIR") or context.home / ".claude")
    here = context.working_folder / ".claude"
    files = [config / "settings.json", here / "settings.json", here / "settings.local.json"]
    for file in dict.fromkeys(files + ([managed] if managed else [])):
        yield from _settings_file(file, context)


def _settings_file(file: Path, context: DoctorContext) -> Iterator[Finding]:
    try:
        settings = _mapping(read_json(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield warning(
            "its settings", f"{file} cannot be read as JSON, so what it overrides is unknown"
        )
        return
    variables = _mapping(settings.get("env"))
    fix = f'Remove it from the "env" of {file}'
    if problem := _overridden_address(variables, context):
        yield red(
            "its settings",
            f"{file}: ANTHROPIC_BASE_URL {problem}, and overrides pensieve's",
            fix,
        )
    others = [name for name in variables if _is_overridden(name, str(variables[name]), context)]
    if others:
        text = f"{file}: sets {', '.join(sorted(others))}, which overrides pensieve's"
        yield warning("its settings", text, fix)
    if settings.get("apiKeyHelper"):
        text = f"{file}: apiKeyHelper makes a key of its own, which this server does not accept"
        yield warning("its settings", text, f"Remove apiKeyHelper from {file}")


def _mapping(stored: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", stored) if isinstance(stored, dict) else {}


def _overridden_address(variables: Mapping[str, object], context: DoctorContext) -> str:
    url = variables.get("ANTHROPIC_BASE_URL")
    problem = _address_problem(str(url), context) if url else None
    return problem[1] if problem else ""


def _is_overridden(name: str, value: str, context: DoctorContext) -> bool:
    if name == "ANTHROPIC_BASE_URL" or not name.startswith(("ANTHROPIC_", "CLAUDE_CODE_USE_")):
        return False
    served = context.record.model if context.record else context.settings.model
    return value not in {served, context.settings.api_key, ""}


def version_of(program: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(  # noqa: S603 -- the user's own program
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
        if version := result.stdout.strip().partition("\n")[0]:
            return version
    return f"{program} does not report its version"
