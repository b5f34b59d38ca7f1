"""The system's Chromium, driven through playwright-core by browser.cjs in a process of node."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.installed import browser_modules

DRIVER = Path(__file__).with_name("browser.cjs")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One tab. Every method waits until what it does is done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, name: str, **options: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": name, **options}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, f"{name} {options}: {answer['error']}"
        return answer["value"]

    def evaluate(self, code: str) -> Any:
        return self.do("evaluate", code=code)

    def wait(self, code: str) -> None:
        """Wait until an expression is true."""
        self.do("wait", code=code)

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def wait_for(self, selector: str, text: str) -> None:
        """Wait until an element has `text` within its own."""
        found = f"document.querySelector({json.dumps(selector)})?.innerText"
        self.wait(f"({found} ?? '').includes({json.dumps(text)})")


@contextmanager
def running_browser() -> Generator[Browser]:
    """Skip without Chromium, node, npm or a registry."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    environment = {**os.environ, "NODE_PATH": str(browser_modules())}
    with subprocess.Popen(
        ["node", str(DRIVER), program],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        # Leaving the block closes its input, which ends the browser and then the process.
        yield Browser(process)
