"""Counts the tokens of Claude Code's first request, for each way to start it.

usage: python -m benchmarks.first_request [--home FOLDER]
The real Claude Code runs headless (`-p`) in an empty folder, against a server that answers one
sentence. The recorded request is rendered for smollm2-135m as the real server would, for several
context sizes: a server with a small context summarizes the tools.
"""

# pyright: basic

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pensieve.api.messages.request import MessagesRequest, decode
from pensieve.models.load import open_model
from pensieve.prompt.render import PromptRenderer
from tests.claude.claude_code import ClaudeCode
from tests.claude.recording import running_server
from tests.cli.fake_server import MODEL, health, message, serving
from tests.cli.program import OWN_KEY
from tests.clients.installed import CLAUDE_CODE, claude_code
from tests.support.embedded_model import embedded_model_folder

CONTEXTS = (8_192, 32_768, 131_072)
QUESTION = '-p "What is in here?"'
WAYS = {
    "address, key and model alone": f"claude {QUESTION}",
    "pensieve env": f'eval "$(pensieve env)"; claude {QUESTION}',
    "pensieve claude": f"pensieve claude {QUESTION}",
    "pensieve env --lite": f'eval "$(pensieve env --lite)"; claude {QUESTION}',
    "pensieve claude --lite": f"pensieve claude --lite {QUESTION}",
}


def first_request(command: str) -> Mapping[str, Any]:
    """Return the first request that `command` sends, run by a user without settings."""
    requests: list[Mapping[str, Any]] = []

    def answer(request: Mapping[str, Any]) -> list[Any]:
        requests.append(request)
        return message("It is empty.")

    with tempfile.TemporaryDirectory() as folder, serving() as server:
        server.answer_to = answer
        server.healths = lambda: health() | {"context_tokens": max(CONTEXTS)}
        home, work = Path(folder, "home"), Path(folder, "work")
        home.mkdir()
        work.mkdir()
        path = os.pathsep.join(
            [str(claude_code()), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        with running_server(Path(folder, "pensieve"), server) as journey:
            environment = ClaudeCode(home, work, path).environment(journey) | {
                "ANTHROPIC_BASE_URL": journey.base_url,
                "ANTHROPIC_AUTH_TOKEN": OWN_KEY,
                "ANTHROPIC_MODEL": MODEL,
            }
            subprocess.run(
                ["sh", "-c", command],
                cwd=work,
                env=environment,
                check=True,
                capture_output=True,
                timeout=300,
            )
    return requests[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir(), "pensieve-home"))
    model = open_model(embedded_model_folder(parser.parse_args().home))
    renderers = [PromptRenderer(model.tokenizer, model.dialect, context) for context in CONTEXTS]
    print(f"{CLAUDE_CODE}, tokens of smollm2-135m in contexts of {CONTEXTS}")
    for way, command in WAYS.items():
        request = decode(MessagesRequest, first_request(command))
        tokens = [len(renderer.render(request).tokens) for renderer in renderers]
        names = [tool.name for tool in request.tools or ()]
        print(f"{way}: {tokens}, {len(names)} tools: {', '.join(names)}")


if __name__ == "__main__":
    main()
