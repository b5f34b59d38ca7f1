"""Install clients that are no dependencies of this project, on first use, into a user's cache.

A client is installed into a temporary folder and then renamed, under a lock: once, if tests at the
same time need it. A client that cannot be installed fails its tests; they are skipped if its
installer is missing or reaches no registry.
"""

import fcntl
import hashlib
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.programs import ProgramError, run_program

FOREIGN = Path(__file__).parent / "foreign"
TYPESCRIPT = "@anthropic-ai/sdk@1.14.0"
AI_SDK = (
    *("ai@7.0.173", "@ai-sdk/openai@4.0.118"),
    *("@ai-sdk/openai-compatible@3.0.92", "zod@4.6.7"),
)
# Its engines ask for a newer node; without a version, npm takes an old one there.
OPENAI = ("openai@7.59.0", "zod@4.6.7")
CLAUDE_CODE = "@anthropic-ai/claude-code@2.1.332"
CODEX = "@openai/codex@0.171.0"
OPENCODE = "opencode-ai@1.18.33"
NUSHELL = "nushell@0.115.1"
BROWSER = ("playwright-core@1.65.1", "axe-core@4.14.1")
LANGCHAIN = FOREIGN / "langchain.txt"
AIDER = FOREIGN / "aider.txt"
# pip's own one has the path of the folder before it was renamed.
AIDER_COMMAND = '#!/bin/sh\nexec "${0%/*}/../bin/python" -m aider "$@"\n'
LLM = FOREIGN / "llm.txt"
# Error messages of npm and pip without a network.
UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT"
    r"|NewConnectionError|NameResolutionError|ConnectTimeoutError"
    r"|Failed to establish a new connection"
)


def node_modules() -> Path:
    """Return the value of NODE_PATH. Skip without node, npm or registry."""
    return _npm_installed(TYPESCRIPT)


def ai_sdk_modules() -> Path:
    """Return the value of NODE_PATH for Vercel's AI SDK. Skip without node, npm or registry."""
    return _npm_installed(*AI_SDK)


def openai_modules() -> Path:
    """Return the value of NODE_PATH for OpenAI's package. Skip without node, npm or registry."""
    return _npm_installed(*OPENAI)


def claude_code() -> Path:
    """Return the folder of the command `claude`. Skip without node, npm or registry."""
    modules = _npm_installed(CLAUDE_CODE)
    commands = modules.parent / "commands"
    for program in modules.glob("@anthropic-ai/claude-code-*/claude"):
        commands.mkdir(exist_ok=True)
        # Instead of the package's install script, or node.
        with suppress(FileExistsError):
            (commands / "claude").symlink_to(program)
    if not commands.is_dir():
        pytest.skip("Claude Code has no program for this machine")
    return commands


def codex() -> Path:
    """Return the command `codex`. Skip without node, npm or registry."""
    return _npm_installed(CODEX) / ".bin" / "codex"


def opencode() -> Path:
    """Return the command `opencode`. Skip without node, npm or registry."""
    modules = _npm_installed(OPENCODE)
    programs = sorted(modules.glob("opencode-*/bin/opencode"), key=lambda path: len(str(path)))
    if not programs:
        pytest.skip("opencode has no program for this machine")
    return programs[0]


def aider() -> Path:
    """Return the command `aider`. Skip without a registry, or under a Python that it refuses."""
    if sys.version_info >= (3, 13):
        pytest.skip("aider needs an older Python")
    command = _python_installed("aider", AIDER) / "commands" / "aider"
    command.parent.mkdir(exist_ok=True)
    command.write_text(AIDER_COMMAND)
    command.chmod(0o755)
    return command


def nushell() -> Path:
    """Return the folder of the command `nu`. Skip without node, npm or registry."""
    return _npm_installed(NUSHELL) / ".bin"


def browser_modules() -> Path:
    """Return the value of NODE_PATH to drive a browser. Skip without node, npm or registry."""
    return _npm_installed(*BROWSER)


def _npm_installed(*packages: str) -> Path:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")

    def install(folder: Path) -> None:
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        run_program(["npm", "install", *options, *packages])

    return _installed(packages[0].rpartition("/")[2], install) / "node_modules"


def langchain_python(pins: Path = LANGCHAIN) -> Path:
    """Return a Python with LangChain's tests and the packages of `pins`, without this project.

    Skip without a registry.
    """
    return _python_installed("langchain", pins) / "bin" / "python"


def llm_python() -> Path:
    """Return a Python that has `llm` as a module. Skip without a registry."""
    return _python_installed("llm", LLM) / "bin" / "python"


def openai_source() -> Path:
    """Return the source of the installed version of `openai`, which has its tests.

    Skip without a registry.
    """
    package = f"openai-{metadata.version('openai')}"

    def fill(folder: Path) -> None:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary=openai"]
        name = package.replace("-", "==")
        pip = [sys.executable, "-m", "pip"]
        run_program([*pip, "download", *options, "--dest", folder, name])
        with tarfile.open(folder / f"{package}.tar.gz") as archive:
            archive.extractall(folder, filter="data")

    return _installed(f"source-of-{package}", fill) / package


def _python_installed(name: str, pins: Path) -> Path:
    """Return a virtual environment with the packages of `pins`."""

    def install(folder: Path) -> None:
        # This environment's pip installs: adding a pip takes longer than most installations.
        run_program([sys.executable, "-m", "venv", "--without-pip", folder])
        options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-compile"]
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        run_program([*pip, "install", *options, "-r", pins])

    version = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    return _installed(f"{name}-{digest}-python-{version}", install)


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """Return the cached folder of a client from a package registry; skip without a registry."""
    try:
        return cached_folder(name, install)
    except ProgramError as error:
        if UNREACHABLE.search(str(error)):
            pytest.skip(f"{name} is not installed, and no registry is reached")
        pytest.fail(f"{name} cannot be installed:\n{error}", pytrace=False)


def cached_folder(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache; if it is missing, `fill` makes its content."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pensieve-tests"
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _fill(folder, fill)
    return folder


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        fill(new)
        new.rename(folder)
