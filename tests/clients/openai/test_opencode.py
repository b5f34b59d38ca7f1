"""The real opencode, headless, by each provider that speaks an API of this server.

Its proxy is a closed port, so that it reaches nothing but the server.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pensieve.engine.generation import Generation
from tests.clients.installed import opencode
from tests.clients.serving import CachingEngine, serving
from tests.clients.test_python_tools import call_text
from tests.server.serving import KEY
from tests.support.fakes import ByteTokenizer

# A token is a byte here: opencode's first prompt has 30 000, the next 10 000 more.
LARGE, SMALL = 200_000, 37_000
COUNT = call_text("bash", {"command": "seq 9000", "description": "Count."})
WRITE = call_text("bash", {"command": "echo hi > out.txt", "description": "Write."})
SUMMARY = "Counting is done."


@dataclass
class Engine(CachingEngine):
    """Gives each prompt with tools the next answer, others the text.

    opencode has no tools in prompts for a title, during its first one, and for a summary.
    """

    answers: Sequence[str] = ()
    prompts: list[str] = field(default_factory=list)  # with tools
    summarized: list[str] = field(default_factory=list)  # without

    def answer_to(self, generation: Generation) -> str:
        prompt = ByteTokenizer().decode(generation.prompt_tokens)
        if generation.grammar is None:
            self.summarized.append(prompt)
            return self.text
        self.prompts.append(prompt)
        return self.answers[len(self.prompts) - 1]


@dataclass(frozen=True)
class OpenCode:
    command: Path
    home: Path
    work: Path

    def run(self, url: str, provider: str, context_tokens: int) -> subprocess.CompletedProcess[str]:
        model = {"limit": {"context": context_tokens, "output": 1000}, "tool_call": True}
        config = {
            "autoupdate": False,
            "share": "disabled",
            "model": "pensieve/local",
            "small_model": "pensieve/local",
            "provider": {
                "pensieve": {
                    "npm": provider,
                    "options": {"baseURL": f"{url}/v1", "apiKey": KEY},
                    "models": {"local": model},
                }
            },
        }
        (self.work / "opencode.json").write_text(json.dumps(config))
        closed = "http://127.0.0.1:9"
        return subprocess.run(
            [self.command, "run", "--print-logs", "Do it."],
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "OPENCODE_DISABLE_MODELS_FETCH": "1",
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
                "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
                "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
                "NO_PROXY": "127.0.0.1",
                "HTTP_PROXY": closed,
                "HTTPS_PROXY": closed,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def command() -> Path:
    return opencode()


@pytest.mark.parametrize(
    ("provider", "assumed_tokens", "context_tokens"),
    [
        # The server refuses the second prompt.
        ("@ai-sdk/openai-compatible", LARGE, SMALL),
        # opencode sees by the second answer's usage that there is no room for another.
        ("@ai-sdk/openai", SMALL + 1000, LARGE),
        ("@ai-sdk/anthropic", SMALL + 1000, LARGE),
    ],
)
def test_opencode_runs_commands_and_continues_after_a_compaction(
    command: Path, tmp_path: Path, provider: str, assumed_tokens: int, context_tokens: int
) -> None:
    program = OpenCode(command, tmp_path / "opencode", tmp_path / "work")
    for folder in (program.home, program.work):
        folder.mkdir()
    engine = Engine(SUMMARY, answers=[COUNT, WRITE, "Done."])
    with serving(engine, tmp_path / "home", context_tokens=context_tokens) as url:
        done = program.run(url, provider, assumed_tokens)
    assert "Done." in done.stdout, done.stderr
    assert (program.work / "out.txt").read_text() == "hi\n"
    assert len(engine.summarized) == 2
    first, second, third = engine.prompts
    if context_tokens == SMALL:
        assert "maximum context length is 37000 tokens" in done.stderr
        assert second + WRITE in third
    else:
        assert second.startswith(first + COUNT)
        assert "\n9000\n" in second
    assert SUMMARY in third
