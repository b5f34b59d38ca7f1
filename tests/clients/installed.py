"""Clients that this project does not depend on: installed on first use into a cache in the user's home.

What is kept there is made aside and then given its name, so that two runs at once do not meet in it. A client that cannot be
installed fails its tests; they are skipped where its installer is missing, or reaches no registry.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

FOREIGN = Path(__file__).parent / "foreign"
TYPESCRIPT = "@anthropic-ai/sdk@1.14.0"
CLAUDE_CODE = "@anthropic-ai/claude-code@2.1.332"
NUSHELL = "nushell@0.115.1"
LANGCHAIN = FOREIGN / "langchain.txt"
# What npm and pip say where they reach nobody.
UNREACHED = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT"
    r"|NewConnectionError|NameResolutionError|ConnectTimeoutError|Failed to establish a new connection"
)


def node_modules() -> Path:
    """The folder to give node as NODE_PATH. Skips where there is no node, no npm or no registry."""
    return _npm_installed(TYPESCRIPT)


def claude_code() -> Path:
    """The folder with the command `claude`. Skips where there is no node, no npm or no registry."""
    modules = _npm_installed(CLAUDE_CODE)
    commands = modules.parent / "commands"
    for program in modules.glob("@anthropic-ai/claude-code-*/claude"):
        commands.mkdir(exist_ok=True)
        # Its own way there is a script that runs at the installation, or node.
        with suppress(FileExistsError):
            (commands / "claude").symlink_to(program)
    if not commands.is_dir():
        pytest.skip("Claude Code has no program for this machine")
    return commands


def nushell() -> Path:
    """The folder with the command `nu`. Skips where there is no node, no npm or no registry."""
    return _npm_installed(NUSHELL) / ".bin"


def _npm_installed(package: str) -> Path:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")

    def install(folder: Path) -> None:
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        _run("npm", "install", *options, package)

    return _installed(package.rpartition("/")[2], install) / "node_modules"


def langchain_python(pins: Path = LANGCHAIN) -> Path:
    """A Python that has langchain-anthropic and langchain's tests, and nothing of this project's. Skips without a registry."""
    version = ".".join(map(str, sys.version_info[:2]))

    def install(folder: Path) -> None:
        # With this environment's pip: to put one into each takes longer than most that is installed with it.
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        options = [
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--no-compile",
        ]
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        _run(*pip, "install", *options, "-r", str(pins))

    name = f"langchain-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}-python-{version}"
    return _installed(name, install) / "bin" / "python"


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """`kept`, for what comes from a package registry. Fails with the installer's words, skips where it reaches nobody."""
    try:
        return kept(name, install)
    except subprocess.CalledProcessError as error:
        said = f"{name} cannot be installed:\n{error.stdout}{error.stderr}"
        if UNREACHED.search(said):
            pytest.skip(f"{name} is not here, and no registry is reached")
        pytest.fail(said, pytrace=False)


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder in the cache; `fill` is given a new one where there is none yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pensieve-tests"
    place = cache / name
    if not place.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            made = Path(aside) / name
            made.mkdir()
            fill(made)
            if not place.is_dir():
                made.rename(place)
    return place


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
