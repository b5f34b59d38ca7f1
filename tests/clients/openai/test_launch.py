"""Real coding agents, started by `pensieve launch`, against a real server with a scripted engine.

Every agent finds a proxy that is a closed port, and configuration of the user's that names another
server: neither is used, and the user's files stay as they are.
"""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.engine.generation import EngineEvent, EngineHealth, Generation
from pensieve.paths import under_home
from tests.clients.installed import aider, codex, opencode
from tests.clients.serving import serving
from tests.clients.test_python_tools import call_text
from tests.support.fakes import ByteTokenizer, ScriptedEngine, says

CLOSED = "http://127.0.0.1:9"
# A token is a byte here.
CONTEXT_TOKENS = 400_000
CODEX_CONFIG = f"""\
model = "theirs"
model_provider = "theirs"
[model_providers.theirs]
name = "theirs"
base_url = "{CLOSED}/v1"
"""
OPENCODE_CONFIG = f"""\
{{
  // theirs
  "$schema": "https://opencode.ai/config.json",
  "model": "theirs/theirs",
  "provider": {{"theirs": {{
    "npm": "@ai-sdk/openai-compatible",
    "options": {{"baseURL": "{CLOSED}/v1"}},
    "models": {{"theirs": {{}}}}
  }}}}
}}
"""
AIDER_CONFIG = f"model: openai/theirs\nweak-model: openai/theirs\nopenai-api-base: {CLOSED}\n"
AIDER_DOTENV = f"""\
OPENAI_API_KEY=theirs
OPENAI_API_BASE={CLOSED}
OPENAI_BASE_URL={CLOSED}
AIDER_MODEL=openai/theirs
"""


@dataclass
class Engine:
    """Plays the scripts to prompts that offer `tool` or, without one, to all prompts in turn."""

    answers: Sequence[str]
    tool: str = ""
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    prompts: list[str] = field(default_factory=list)

    def expect(self) -> AbstractContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        prompt = ByteTokenizer().decode(generation.prompt_tokens)
        answer = "A title"
        if not self.tool or self.tool in (generation.grammar.lark if generation.grammar else ""):
            self.prompts.append(prompt)
            answer = self.answers[len(self.prompts) - 1]
        async with ScriptedEngine([says(answer)]).generate(generation) as events:
            yield events


@dataclass(frozen=True)
class Machine:
    """A home folder with files of the user's, a working folder, and a running server."""

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def files(self) -> dict[Path, str]:
        """The user's own files."""
        home = self.root / "home"
        return {
            home / ".codex" / "config.toml": CODEX_CONFIG,
            home / ".config" / "opencode" / "opencode.json": OPENCODE_CONFIG,
            home / ".aider.conf.yml": AIDER_CONFIG,
            self.work / ".env": AIDER_DOTENV,
        }

    def launch(
        self, engine: Engine, commands: Path, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `pensieve launch` with these arguments and the agent's folder of commands."""
        for file, text in self.files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        with self._running(engine):
            done = subprocess.run(
                [sys.executable, "-m", "pensieve", "launch", *arguments],
                cwd=self.work,
                env=self._environment(commands),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
        assert {file: file.read_text() for file in self.files} == self.files
        return done

    def _environment(self, commands: Path) -> dict[str, str]:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), CLOSED)
        return proxies | {
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            "PENSIEVE_HOME": str(self.root / "it's pensieve"),
            "OPENAI_API_KEY": "theirs",
            "OPENAI_BASE_URL": f"{CLOSED}/v1",
            "TERM": "dumb",
        }

    @contextmanager
    def _running(self, engine: Engine) -> Generator[None]:
        paths = under_home(self.root / "it's pensieve")
        model = {"context_tokens": CONTEXT_TOKENS, "name": "m"}
        with (
            serving(engine, self.root / "server", **model) as url,  # type: ignore[arg-type]
            server_lock.acquire(paths),
            publish(
                paths, own_record(Address("127.0.0.1", int(url.rpartition(":")[2]), "m", "cpu"))
            ),
        ):
            yield


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def commands(install: Callable[[], Path]) -> Path:
    """Return the folder that alone has the agent's command."""
    return install().parent


def test_codex_runs_a_command(machine: Machine) -> None:
    call = call_text("exec_command", {"cmd": "echo hi > out.txt"})
    engine = Engine([call, "Done."])
    options = ("--skip-git-repo-check", "--sandbox", "danger-full-access", "Do it.")
    done = machine.launch(engine, commands(codex), "codex", "exec", *options)
    assert done.stdout.strip() == "Done.", done.stderr
    assert (machine.work / "out.txt").read_text() == "hi\n"
    assert "web_search" not in engine.prompts[0]


def test_exit_code_is_the_agents(machine: Machine) -> None:
    done = machine.launch(Engine([]), commands(codex), "codex", "exec", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_opencode_writes_a_file(machine: Machine) -> None:
    call = call_text("write", {"filePath": str(machine.work / "out.txt"), "content": "hi"})
    engine = Engine([call, "It is written."], tool="write")
    done = machine.launch(engine, commands(opencode), "opencode", "run", "Do it.")
    assert "It is written." in done.stdout, done.stderr
    assert (machine.work / "out.txt").read_text() == "hi"


def test_aider_edits_a_file(machine: Machine) -> None:
    machine.work.mkdir()
    file = machine.work / "greet.py"
    file.write_text("print('hi')\n")
    engine = Engine(["greet.py\n```python\nprint('hello')\n```\n"])
    options = ("--no-git", "--yes-always", "--message", "Say hello.", "greet.py")
    done = machine.launch(engine, commands(aider), "aider", *options)
    assert file.read_text() == "print('hello')\n", done.stdout + done.stderr
    assert done.returncode == 0
