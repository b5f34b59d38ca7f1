"""Check coding agents other than Claude Code, and the variables of OpenAI's clients.

aider's `.env` was tried with 0.86; the managed files follow the agents' documentation.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pensieve.doctor.checks.clients import HERE, port_of, version_of
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, warning

EVAL = 'eval "$(pensieve env --for openai)"'
URLS = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
KEY = "OPENAI_API_KEY"
MAX_CHARS = 1 << 20
# Folders of the home folder, and the variables that put them elsewhere.
MOVABLE = {".codex": "CODEX_HOME", ".config": "XDG_CONFIG_HOME"}
_LOCAL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\]):(\d{1,5})")
_AIDER_VARIABLE = re.compile(
    r"^\s*(?:export\s+)?(AIDER_(?:OPENAI_API_\w+|\w*MODEL))\s*=", re.MULTILINE
)
_MODEL_SETTING = re.compile(r"\b(model|model_provider|enabled_providers|disabled_providers)\b")


@dataclass(frozen=True, slots=True)
class Agent:
    name: str  # also its command
    own_files: tuple[str, ...]  # in the home folder
    project_files: tuple[str, ...] = ()  # in the working folder
    # An administrator's, by platform; they override those and the command line.
    managed: Mapping[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])


AGENTS = (
    Agent(
        "codex",
        (".codex/config.toml", ".codex/pensieve.config.toml"),
        (".codex/config.toml",),
        dict.fromkeys(("darwin", "linux"), (Path("/etc/codex/managed_config.toml"),)),
    ),
    Agent(
        "opencode",
        (".config/opencode/opencode.json", ".config/opencode/opencode.jsonc"),
        ("opencode.json", "opencode.jsonc", ".opencode/opencode.json"),
        {
            "darwin": (Path("/Library/Application Support/opencode/opencode.json"),),
            "linux": (Path("/etc/opencode/opencode.json"),),
        },
    ),
    Agent("aider", (".aider.conf.yml",), (".aider.conf.yml",)),
    Agent("zed", (".config/zed/settings.json",), (".zed/settings.json",)),
)


def check(context: DoctorContext, agents: tuple[Agent, ...] = AGENTS) -> Iterator[Finding]:
    """Check OpenAI's variables, and each installed agent and its configuration files."""
    yield from _variables(context)
    absent: list[str] = []
    for agent in agents:
        program = shutil.which(agent.name, path=context.environ.get("PATH"))
        if program is None:
            absent.append(agent.name)
            continue
        yield ok(agent.name, version_of(program))
        yield from _stale_addresses(agent, context)
        yield from _managed(agent)
    if "aider" not in absent:
        yield from _dotenv(context)
    if absent:
        yield ok("agents", f"not installed: {', '.join(absent)}; pensieve does not need them")


def _variables(context: DoctorContext) -> Iterator[Finding]:
    """Warn if a key would be refused here, or this server's be sent elsewhere."""
    key, is_ours = (
        context.environ.get(KEY, ""),
        context.environ.get(KEY) == context.settings.api_key,
    )
    urls = {name: url for name in URLS if (url := context.environ.get(name))}
    for name, url in urls.items():
        is_here = _is_here(url, context)
        if is_here and key and not is_ours:
            text = f"{name} points here, and {KEY} is not this server's key: it would be refused"
            yield warning("openai", text, EVAL)
        elif is_here:
            yield ok("openai", f"{name} points here")
        elif is_ours or _LOCAL.match(url):
            yield warning("openai", f"{name} points elsewhere, not to this pensieve", EVAL)
        else:
            yield ok("openai", f"{name} points elsewhere; to set it: {EVAL}")


def _is_here(url: str, context: DoctorContext) -> bool:
    try:
        address = urlsplit(url)
        port = address.port or 80
    except ValueError:
        return False
    return address.hostname in HERE | {context.settings.host} and port == port_of(context)


def _stale_addresses(agent: Agent, context: DoctorContext) -> Iterator[Finding]:
    """Warn of a file with a provider called pensieve, and only other ports of this machine."""
    files = [_own(name, context) for name in agent.own_files]
    files += [context.working_folder / name for name in agent.project_files]
    for file in dict.fromkeys(files):
        text = _text(file)
        ports = {int(port) for port in _LOCAL.findall(text)}
        if "pensieve" in text.lower() and ports and port_of(context) not in ports:
            other = ", ".join(map(str, sorted(ports)))
            found = f"{file} points to port {other}, not to this pensieve (port {port_of(context)})"
            yield warning(agent.name, found, f"pensieve env --for {agent.name}")


def _own(name: str, context: DoctorContext) -> Path:
    first, _, rest = name.partition("/")
    moved = context.environ.get(MOVABLE.get(first, ""))
    return Path(moved, rest) if moved else context.home / name


def _managed(agent: Agent) -> Iterator[Finding]:
    for file in agent.managed.get(sys.platform, ()):
        settings = sorted(set(_MODEL_SETTING.findall(_text(file))))
        if settings:
            text = f"{file} sets {', '.join(settings)}, which overrides pensieve's"
            yield warning(agent.name, text, f"Ask who manages this machine to change {file}")


def _dotenv(context: DoctorContext) -> Iterator[Finding]:
    """Warn of what aider reads from .env files: it overrides the shell's variables."""
    for file in dict.fromkeys((context.home / ".env", context.working_folder / ".env")):
        names = sorted(set(_AIDER_VARIABLE.findall(_text(file))))
        if names:
            text = f"{file} sets {', '.join(names)}, which overrides pensieve's"
            yield warning("aider", text, f"Remove it from {file}")


def _text(file: Path) -> str:
    """Return the beginning of a file; nothing if it cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(MAX_CHARS)
    except OSError:
        return ""
