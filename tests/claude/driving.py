"""Claude Code as a person or a script runs it: by `pensieve claude`, headless or in a terminal."""

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

ROOT = Path(__file__).parents[2]
PENSIEVE = [sys.executable, "-m", "pensieve"]
# For a machine with much else to do.
PATIENCE_S = 240
# After which a key was not heard.
UNHEARD_S = 20
# What stands on the screen for so long is there to stay.
REST_S = 1
STREAMED = ("--output-format", "stream-json", "--verbose")


@dataclass(frozen=True)
class ClaudeCode:
    """home: whose settings it reads. work: where it runs. path: the PATH on which it is found."""

    home: Path
    work: Path
    path: str

    def environment(self, journey: Installation) -> dict[str, str]:
        """Nothing of the tester's own but what programs need."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        return kept | {
            "PATH": self.path,
            "HOME": str(self.home),
            "TERM": "xterm-256color",
            "SHELL": "/bin/sh",
            "PENSIEVE_HOME": str(journey.home),
            "PENSIEVE_PORT": str(journey.port),
            # It does not run as root otherwise.
            "IS_SANDBOX": "1",
        }

    def asked(
        self, journey: Installation, *words: str, stdin: str = "", before: tuple[str, ...] = ()
    ) -> "Said":
        """What it says to `pensieve claude` with these words. before: a command that runs it."""
        done = subprocess.run(
            [*before, *PENSIEVE, "claude", *words, *STREAMED],
            env=self.environment(journey),
            cwd=self.work,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Said([json.loads(line) for line in done.stdout.splitlines()], done.stderr)

    @contextmanager
    def streaming(
        self, journey: Installation, *words: str, stdin: str
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Its lines as they come."""
        command = [*PENSIEVE, "claude", *words, *STREAMED, "--include-partial-messages"]
        with subprocess.Popen(
            command,
            env=self.environment(journey),
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
    def terminal(self, journey: Installation, script: str) -> Iterator["Terminal"]:
        """A terminal in which `sh` runs `script`; where a person has been through the first questions about colours."""
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        done = {"hasCompletedOnboarding": True, "lastOnboardingVersion": "2.1.332"}
        (self.home / ".claude.json").write_text(json.dumps(done), encoding="utf-8")
        written = self.home / "written"
        os.mkfifo(written)
        terminal = Terminal(f"pensieve-{uuid.uuid4().hex[:8]}", os.open(written, os.O_RDWR))
        terminal.open(script, self.environment(journey), self.work)
        try:
            terminal.tmux("pipe-pane", f"exec cat > {shlex.quote(str(written))}")
            yield terminal
        finally:
            terminal.tmux("kill-server")
            os.close(terminal.written)


@dataclass(frozen=True)
class Said:
    """The lines of one run, and what went to standard error."""

    lines: list[dict[str, Any]]
    errors: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line, which sums up."""
        assert self.lines, self.errors
        assert self.lines[-1]["type"] == "result", self.lines[-1]
        return self.lines[-1]

    @property
    def text(self) -> str:
        return self.result["result"]

    @property
    def usages(self) -> list[Mapping[str, int]]:
        """Of each answer, as the client has it."""
        return [line["message"]["usage"] for line in self.lines if line["type"] == "assistant"]

    @property
    def tools_used(self) -> list[str]:
        content = [
            b
            for line in self.lines
            if line["type"] == "assistant"
            for b in line["message"]["content"]
        ]
        return [block["name"] for block in content if block["type"] == "tool_use"]


@dataclass(frozen=True)
class Terminal:
    """A tmux server of its own, with one window. written: a pipe with what its program writes, to know when to look."""

    name: str
    written: int

    def open(self, script: str, environment: Mapping[str, str], folder: Path) -> None:
        told = [f"{name}={value}" for name, value in environment.items()]
        command = shlex.join(["env", "-i", *told, "sh", "-c", script])
        size = ["-x", "110", "-y", "50"]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), command)

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self.name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def press(self, *keys: str) -> None:
        """Each is a text to type, or a key by tmux's name for it."""
        for key in keys:
            self.tmux("send-keys", key)

    def press_until(self, key: str, is_done: Callable[[str], bool]) -> str:
        """As a person does it: while a screen is still being built, a key may not be heard. The screen, once it is done."""
        for _ in range(PATIENCE_S // UNHEARD_S):
            self.press(key)
            if self._waited(is_done, UNHEARD_S):
                break
        return self.once(is_done)

    def steer(self, next_key: Callable[[str], str | None]) -> None:
        """Press what `next_key` says for the screen, once that is at rest, until it says nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while (key := next_key(self._at_rest())) is not None:
            assert time.monotonic() < deadline, f"still there:\n{self._screen()}"
            self.press(key)
            self._waited(lambda screen, key=key: next_key(screen) != key, UNHEARD_S)

    def seen(self, text: str) -> str:
        """The screen, once `text` is on it."""
        return self.once(lambda screen: text in screen)

    def once(self, is_done: Callable[[str], bool]) -> str:
        """The screen, once it is as wanted."""
        assert self._waited(is_done, PATIENCE_S), f"still to be seen:\n{self._screen()}"
        return self._screen()

    def _waited(self, is_done: Callable[[str], bool], most_s: float) -> bool:
        deadline = time.monotonic() + most_s
        while not is_done(self._screen()):
            left_s = max(0, deadline - time.monotonic())
            if not select.select([self.written], [], [], left_s)[0]:
                return False
            os.read(self.written, 1 << 16)
        return True

    def _at_rest(self) -> str:
        """What is on the screen and stays there: a question that is built up twice forgets which answer was chosen."""
        screen = self._screen()
        while self._waited(lambda now, screen=screen: now != screen, REST_S):
            screen = self._screen()
        return screen

    def _screen(self) -> str:
        return self.tmux("capture-pane", "-p")
