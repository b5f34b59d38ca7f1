"""Run Claude Code by `pensieve claude`, headless or in a terminal."""

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation
from tests.support.programs import run_program

ROOT = Path(__file__).parents[2]
PENSIEVE = [sys.executable, "-m", "pensieve"]
# Enough for a busy machine.
TIMEOUT_S = 240
# The time after which a key press counts as lost.
KEY_TIMEOUT_S = 20
# The time without a change after which a screen is complete.
SETTLED_S = 1
STREAMED = ("--output-format", "stream-json", "--verbose")


@dataclass(frozen=True)
class ClaudeCode:
    """The command with its own home."""

    home: Path  # has its settings
    work: Path  # the working folder
    path: str  # the PATH that has the command `claude`

    def environment(self, installation: Installation) -> dict[str, str]:
        """Return variables without the user's own, except those that programs need."""
        inherited = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        return inherited | {
            "PATH": self.path,
            "HOME": str(self.home),
            "TERM": "xterm-256color",
            "SHELL": "/bin/sh",
            "PENSIEVE_HOME": str(installation.home),
            "PENSIEVE_PORT": str(installation.port),
            # Otherwise it refuses to run as root.
            "IS_SANDBOX": "1",
        }

    def run(
        self,
        installation: Installation,
        *arguments: str,
        stdin: str = "",
        wrapper: tuple[str, ...] = (),
    ) -> "Output":
        """Run `pensieve claude` with these arguments, as arguments of `wrapper` if given."""
        done = subprocess.run(
            [*wrapper, *PENSIEVE, "claude", *arguments, *STREAMED],
            env=self.environment(installation),
            cwd=self.work,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Output([json.loads(line) for line in done.stdout.splitlines()], done.stderr)

    @contextmanager
    def streaming(
        self, installation: Installation, *arguments: str, stdin: str
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Run it and yield its lines while they arrive."""
        command = [*PENSIEVE, "claude", *arguments, *STREAMED, "--include-partial-messages"]
        with subprocess.Popen(
            command,
            env=self.environment(installation),
            cwd=self.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            with process.stdin:
                process.stdin.write(stdin)
            try:
                yield (json.loads(line) for line in process.stdout)
            finally:
                process.kill()

    @contextmanager
    def terminal(self, installation: Installation, script: str) -> Iterator["Terminal"]:
        """Run a shell script in a terminal, with the first questions about colours answered."""
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        settings = {"hasCompletedOnboarding": True, "lastOnboardingVersion": "2.1.332"}
        (self.home / ".claude.json").write_text(json.dumps(settings), encoding="utf-8")
        output = self.home / "output"
        os.mkfifo(output)
        terminal = Terminal(f"pensieve-{uuid.uuid4().hex[:8]}", os.open(output, os.O_RDWR))
        terminal.open(script, self.environment(installation), self.work)
        try:
            terminal.tmux("pipe-pane", f"exec cat > {shlex.quote(str(output))}")
            yield terminal
        finally:
            terminal.tmux("kill-server")
            os.close(terminal.output)


@dataclass(frozen=True)
class Output:
    """The lines of one run, and its standard error."""

    lines: list[dict[str, Any]]
    errors: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line, a summary."""
        assert self.lines, self.errors
        assert self.lines[-1]["type"] == "result", self.lines[-1]
        return self.lines[-1]

    @property
    def text(self) -> str:
        return self.result["result"]

    @property
    def usages(self) -> list[Mapping[str, int]]:
        """The usage of each answer."""
        return [line["message"]["usage"] for line in self.lines if line["type"] == "assistant"]

    @property
    def tools_used(self) -> list[str]:
        messages = [line["message"] for line in self.lines if line["type"] == "assistant"]
        blocks = [block for message in messages for block in message["content"]]
        return [block["name"] for block in blocks if block["type"] == "tool_use"]


@dataclass(frozen=True)
class Terminal:
    """A tmux server with one window."""

    name: str
    output: int  # a pipe with the program's output: readable after a change

    def open(self, script: str, environment: Mapping[str, str], folder: Path) -> None:
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = shlex.join(["env", "-i", *variables, "sh", "-c", script])
        size = ["-x", "110", "-y", "50"]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), command)

    def tmux(self, *arguments: str) -> str:
        return run_program(["tmux", "-L", self.name, *arguments]).stdout

    def press(self, *keys: str) -> None:
        """Type texts, or press keys by their tmux names."""
        for key in keys:
            self.tmux("send-keys", key)

    def press_until(self, key: str, is_done: Callable[[str], bool]) -> str:
        """Press a key again until the screen is as expected: an unfinished screen loses keys."""
        for _ in range(TIMEOUT_S // KEY_TIMEOUT_S):
            self.press(key)
            if self._wait(is_done, KEY_TIMEOUT_S):
                break
        return self.wait_until(is_done)

    def steer(self, next_key: Callable[[str], str | None]) -> None:
        """Press the key that `next_key` returns for a settled screen, until it returns None."""
        deadline = time.monotonic() + TIMEOUT_S
        while (key := next_key(self._settled_screen())) is not None:
            assert time.monotonic() < deadline, f"timed out at this screen:\n{self._screen()}"
            self.press(key)
            self._wait(lambda screen, key=key: next_key(screen) != key, KEY_TIMEOUT_S)

    def wait_for(self, text: str) -> str:
        """Return the screen once it contains `text`."""
        return self.wait_until(lambda screen: text in screen)

    def wait_until(self, is_done: Callable[[str], bool]) -> str:
        """Return the screen once it is as expected."""
        assert self._wait(is_done, TIMEOUT_S), f"timed out at this screen:\n{self._screen()}"
        return self._screen()

    def _wait(self, is_done: Callable[[str], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not is_done(self._screen()):
            left_s = max(0, deadline - time.monotonic())
            if not select.select([self.output], [], [], left_s)[0]:
                return False
            os.read(self.output, 1 << 16)
        return True

    def _settled_screen(self) -> str:
        """Return a screen that no longer changes: a redrawn question loses the chosen answer."""
        screen = self._screen()
        while self._wait(lambda now, screen=screen: now != screen, SETTLED_S):
            screen = self._screen()
        return screen

    def _screen(self) -> str:
        return self.tmux("capture-pane", "-p")
