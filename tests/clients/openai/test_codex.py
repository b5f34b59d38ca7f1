"""The real Codex CLI, headless, against a real server with a scripted engine.

Its proxy is a closed port, so that it reaches nothing but the server.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.engine.generation import EngineEvent, EngineHealth, Generation, Started, Token
from pensieve.errors import WorkerDiedError
from tests.clients.installed import FOREIGN, codex
from tests.clients.serving import serving
from tests.clients.test_python_tools import THINKING_DIALECT, call_text
from tests.dialects.grammar.test_answer_grammar import vocabulary
from tests.server.serving import KEY
from tests.support.fakes import ByteTokenizer, ScriptedEngine, Step, says

# Codex sends 40 kB, which are as many tokens here.
CONTEXT_TOKENS = 400_000
CONFIG = """
model = "local"
model_provider = "pensieve"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.pensieve]
name = "pensieve"
base_url = "{url}/v1"
wire_api = "responses"
"""
WITH_KEY = """
env_key = "PENSIEVE_KEY"
"""
# A model to which Codex offers its tool of patches, whose input has a grammar.
CATALOG = {
    "slug": "local",
    "display_name": "local",
    "description": "A model on this machine.",
    "supported_reasoning_levels": [],
    "shell_type": "shell_command",
    "visibility": "list",
    "supported_in_api": True,
    "priority": 1,
    "base_instructions": "Be brief.",
    "supports_reasoning_summaries": False,
    "default_reasoning_summary": "auto",
    "support_verbosity": False,
    "apply_patch_tool_type": "freeform",
    "truncation_policy": {"mode": "bytes", "limit": 10_000},
    "supports_parallel_tool_calls": True,
    "context_window": CONTEXT_TOKENS,
    "effective_context_window_percent": 95,
    "experimental_supported_tools": [],
    "input_modalities": ["text"],
}
PATCH = "*** Begin Patch\n*** Add File: out.txt\n+hi\n*** End Patch"
MCP = """
[mcp_servers.stub]
command = {python}
args = [{program}]
"""


@dataclass
class Engine:
    """Plays one script per request; keeps the prompts as texts."""

    scripts: Sequence[Sequence[Step]]
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    prompts: list[str] = field(default_factory=list)
    grammars: list[str] = field(default_factory=list)

    def expect(self) -> AbstractContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        self.prompts.append(ByteTokenizer().decode(generation.prompt_tokens))
        self.grammars.append(generation.grammar.lark if generation.grammar else "")
        script = self.scripts[len(self.prompts) - 1]
        async with ScriptedEngine([script]).generate(generation) as events:
            yield events


class CutOnce:
    """Cuts the connection in the middle of the first response that has a text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._has_cut = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_until_cut(message: Message) -> None:
            await send(message)
            if not self._has_cut and b"output_text.delta" in message.get("body", b""):
                self._has_cut = True
                raise ConnectionAbortedError

        await self._app(scope, receive, send_until_cut)


@dataclass(frozen=True)
class Codex:
    command: Path
    home: Path
    work: Path

    def run(
        self, url: str, *arguments: str, config: str = WITH_KEY
    ) -> subprocess.CompletedProcess[str]:
        (self.home / "config.toml").write_text(CONFIG.format(url=url) + config)
        closed = "http://127.0.0.1:9"
        return subprocess.run(
            [self.command, "exec", "--skip-git-repo-check", *arguments, "Do it."],
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "PENSIEVE_KEY": KEY,
                "CODEX_HOME": str(self.home),
                "NO_PROXY": "127.0.0.1",
                "HTTP_PROXY": closed,
                "HTTPS_PROXY": closed,
                "ALL_PROXY": closed,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def command() -> Path:
    return codex()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def run(command: Path, work: Path, tmp_path: Path) -> Run:
    """A function that runs Codex against a server with an engine."""
    (tmp_path / "codex").mkdir()
    program = Codex(command, tmp_path / "codex", work)

    def run(
        engine: Engine,
        *arguments: str,
        config: str = WITH_KEY,
        middleware: Sequence[type] = (),
        **model: Any,
    ) -> subprocess.CompletedProcess[str]:
        model = {"context_tokens": CONTEXT_TOKENS} | model
        with serving(engine, tmp_path / "home", *middleware, **model) as url:  # type: ignore[arg-type]
            return program.run(url, *arguments, config=config)

    return run


def test_codex_writes_a_file_runs_it_and_ends_in_a_text(run: Run, work: Path) -> None:
    commands = ("echo 'echo moon' > program", "sh program > out.txt; cat out.txt")
    writing, running = (
        f"<think>\nI think.\n</think>\n\nLet me.\n{call_text('exec_command', {'cmd': command})}"
        for command in commands
    )
    engine = Engine([says(writing), says(running), says("Done.")])
    done = run(engine, dialect=THINKING_DIALECT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Done."
    assert (work / "out.txt").read_text() == "moon\n"
    assert "I think." in done.stderr
    # Each prompt continues the answer before it as it was generated.
    first, second, third = engine.prompts
    assert second.startswith(first + writing)
    assert third.startswith(second + running)
    assert "moon" in third.removeprefix(second + running)


def test_codex_reports_a_call_that_was_broken_off(run: Run, work: Path) -> None:
    call = call_text("exec_command", {"cmd": "echo hi > out.txt"})
    engine = Engine([says(call[: call.index("out.txt")]), says("Done.")])
    done = run(engine)
    assert done.stdout.strip() == "Done.", done.stderr
    assert not (work / "out.txt").exists()
    assert "failed to parse function arguments" in engine.prompts[1].rpartition("<tool_result")[2]


def test_codex_calls_a_tool_of_an_mcp_server(run: Run) -> None:
    program = FOREIGN / "mcp_stub.py"
    config = WITH_KEY + MCP.format(
        python=json.dumps(sys.executable), program=json.dumps(str(program))
    )
    engine = Engine([says(call_text("mcp__stub__lookup", {"word": "moon"})), says("It is 42.")])
    done = run(engine, config=config)
    assert done.stdout.strip() == "It is 42.", done.stderr
    assert "forty-two" in engine.prompts[1].rpartition("<tool_result")[2]


def test_codex_edits_a_file_by_a_patch_of_its_grammar(run: Run, work: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.json"
    catalog.write_text(json.dumps({"models": [CATALOG]}))
    call = call_text("apply_patch", {"input": PATCH})
    engine = Engine([says(call), says("Done.")])
    done = run(engine, "-c", f"model_catalog_json={json.dumps(str(catalog))}")
    assert (work / "out.txt").read_text() == "hi\n", done.stderr
    assert done.stdout.strip() == "Done."
    grammar = engine.grammars[0]
    assert is_answer(grammar, call)
    assert not is_answer(grammar, call_text("apply_patch", {"input": PATCH.replace("+hi", "hi")}))


def is_answer(grammar: str, text: str) -> bool:
    """Return whether a grammar admits the whole answer."""
    at = LLMatcher(vocabulary(False), grammar)
    tokens = list(text.encode())
    return at.try_consume_tokens(tokens) == len(tokens) and at.is_accepting()


def test_codex_without_a_key_gets_an_answer_of_its_schema(run: Run, work: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    (work / "schema.json").write_text(json.dumps(schema))
    answer = work / "answer.json"
    options = ("--output-schema", str(work / "schema.json"), "-o", str(answer))
    done = run(Engine([says('{"city": "Rome"}')]), *options, config="")
    assert json.loads(answer.read_text()) == {"city": "Rome"}, done.stderr


def test_codex_repeats_a_response_that_failed(run: Run) -> None:
    failing = [Started(0), *map(Token, b"Hel"), WorkerDiedError("The engine worker ended.")]
    engine = Engine([failing, says("Hello.")])
    done = run(engine)
    assert done.stdout.strip() == "Hello.", done.stderr
    assert engine.prompts[0] == engine.prompts[1]


def test_codex_repeats_a_response_whose_stream_was_cut(run: Run) -> None:
    engine = Engine([says("Hello."), says("Hello again.")])
    done = run(engine, middleware=[CutOnce])
    assert done.stdout.strip() == "Hello again.", done.stderr
    assert engine.prompts[0] == engine.prompts[1]


def test_codex_says_that_a_prompt_is_too_long(run: Run) -> None:
    engine = Engine([])
    done = run(engine, context_tokens=9000)
    assert done.returncode != 0
    assert "ran out of room" in done.stderr
    assert engine.prompts == []
