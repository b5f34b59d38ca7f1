"""A conversation typed on a pseudo-terminal: keys, several lines, history, Ctrl-C."""

import json
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.cli.fake_server import Event, FakeServer, delta, endlessly, message, serving, text_of
from tests.cli.program import PROGRAM, environment
from tests.support.programs import run_program

# pexpect forks. The fake server's thread holds no lock that the child needs before its exec.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

PASTE_ON = "\x1b[?2004h"  # each prompt begins with it
ALT_ENTER, CTRL_G, UP = "\x1b\r", "\x07", "\x1b[A"


class Person:
    """Types at a terminal that runs the chat."""

    def __init__(self, server: FakeServer, home: Path, *arguments: str, **variables: str) -> None:
        self.server = server
        self.child: pexpect.spawn[str] = pexpect.spawn(
            PROGRAM[0],
            [*PROGRAM[1:], "chat", *arguments],
            env=environment(
                home,
                **{
                    "TERM": "xterm",
                    "PENSIEVE_PORT": str(server.server_port),
                    "PROMPT_TOOLKIT_NO_CPR": "1",  # pexpect answers no question about the cursor
                    **variables,
                },
            ),
            cwd=str(home),
            encoding="utf-8",
            timeout=30,
            dimensions=(24, 80),
        )

    def wait(self) -> None:
        """Wait for the prompt."""
        self.child.expect_exact(PASTE_ON)

    def types(self, *lines: str) -> None:
        """Type each line at its own prompt, with Enter."""
        for line in lines:
            self.wait()
            self.child.send(line + "\r")

    def leaves(self) -> tuple[int, str]:
        self.wait()
        self.child.sendeof()
        return self.end()

    def end(self) -> tuple[int, str]:
        printed = self.child.read()
        self.child.close()
        return self.child.exitstatus, printed

    @property
    def questions(self) -> list[str]:
        """Return the last question of each call."""
        return [text_of(body["messages"][-1]) for _, body in self.server.calls]  # type: ignore[index]


def test_ctrl_c_stops_the_answer_but_not_the_conversation(tmp_path: Path) -> None:
    with serving(endlessly("Once upon"), message("The end.")) as server:
        person = Person(server, tmp_path)
        person.types("Tell me a story")
        person.child.expect("Once upon")
        person.child.sendintr()
        person.child.expect("stopped")
        assert server.has_lost_client.wait(10)
        person.types("Finish it")
        person.child.expect(r"The end\.")
        assert person.leaves()[0] == 0
        assert text_of(server.calls[1][1]["messages"][1]) == "Once upon"  # type: ignore[index]


def test_ctrl_c_clears_a_line_and_twice_at_an_empty_prompt_quits(
    tmp_path: Path,
) -> None:
    with serving(message("x")) as server:
        person = Person(server, tmp_path)
        person.wait()
        person.child.send("half a question")
        person.child.expect("question")
        person.child.sendintr()
        person.child.send("Whole?\r")
        person.wait()
        person.child.sendintr()
        person.child.expect("again quits")
        person.wait()
        person.child.sendintr()
        code, printed = person.end()
        assert person.questions == ["Whole?"]
    assert code == 130
    assert "Traceback" not in printed


def test_three_quotes_enclose_several_lines(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        person = Person(server, tmp_path)
        person.types('"""one\rtwo\r"""')
        person.leaves()
        assert person.questions == ["one\ntwo"]


def test_alt_enter_starts_a_line_and_in_multi_mode_sends(tmp_path: Path) -> None:
    with serving(message("x"), message("x")) as server:
        person = Person(server, tmp_path)
        person.types(f"one{ALT_ENTER}two", "/multi")
        person.wait()
        person.child.send(f"three\rfour{ALT_ENTER}")
        person.leaves()
        assert person.questions == ["one\ntwo", "three\nfour"]


def test_pasted_lines_are_one_question(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        person = Person(server, tmp_path)
        person.types("\x1b[200~one\n\n/two\n\x1b[201~three")
        person.leaves()
        assert person.questions == ["one\n\n/two\nthree"]


def test_ctrl_g_opens_the_editor_with_the_typed_text(tmp_path: Path) -> None:
    editor = tmp_path / "my editor"
    editor.write_text('#!/bin/sh\necho "and edited" >> "$1"\n')
    editor.chmod(0o700)
    with serving(message("x")) as server:
        person = Person(server, tmp_path, EDITOR=f"'{editor}'", VISUAL="")
        person.wait()
        person.child.send(f"typed {CTRL_G}")
        person.child.expect("and edited")
        person.child.send("\r")
        person.leaves()
        assert person.questions == ["typed and edited"]


def test_history_is_private_and_skips_lines_with_a_leading_space(tmp_path: Path) -> None:
    path = tmp_path / "pensieve/state/chat_history"
    with serving(*[message("x")] * 5) as server:
        person = Person(server, tmp_path)
        person.types(f"first{ALT_ENTER}größe", " a secret", "second", "second")
        person.leaves()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [json.loads(line) for line in path.read_text().splitlines()] == [
            "first\ngröße",
            "second",
        ]
        again = Person(server, tmp_path)
        again.wait()
        again.child.send(f"{UP}\r")
        again.leaves()
        assert again.questions[1:2] + again.questions[-1:] == ["a secret", "second"]


def test_no_history_saves_nothing(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        person = Person(server, tmp_path, "--no-history")
        person.types("first")
        person.leaves()
    assert not (tmp_path / "pensieve/state/chat_history").exists()


def test_unwritable_history_does_not_end_the_conversation(tmp_path: Path) -> None:
    folder = tmp_path / "pensieve/state"
    folder.mkdir(parents=True)
    (folder / "chat_history").symlink_to("/etc/hostname")
    with serving(message("Paris.")) as server:
        person = Person(server, tmp_path)
        person.types("Which?")
        person.child.expect(r"Paris\.")
        assert person.leaves()[0] == 0
    assert (folder / "chat_history").is_symlink()


def test_typing_during_an_answer_appears_at_the_next_prompt(
    tmp_path: Path,
) -> None:
    with serving(endlessly("Once upon"), message("The end.")) as server:
        person = Person(server, tmp_path)
        person.types("A story")
        person.child.expect("Once upon")
        person.child.send("typed ahead")
        person.child.sendintr()
        person.child.expect("stopped")
        assert "typed ahead" not in person.child.before
        person.wait()
        person.child.send("?\r")
        person.child.expect(r"The end\.")
        person.leaves()


def test_chat_works_on_a_dumb_terminal(tmp_path: Path) -> None:
    with serving(message("**Paris**.")) as server:
        person = Person(server, tmp_path, TERM="dumb")
        person.child.expect("> ")
        person.child.send("Which?\r")
        person.child.expect(r"\*\*Paris\*\*\.")
        person.child.expect("> ")
        person.child.sendeof()
        code, printed = person.end()
    assert code == 0
    assert "\x1b" not in printed


def test_with_the_output_in_a_file_the_prompts_stay_on_the_terminal(tmp_path: Path) -> None:
    with serving(message("Paris.")) as server:
        child = pexpect.spawn(
            "/bin/sh",
            ["-c", '"$@" chat > answers', "sh", *PROGRAM],
            env=environment(
                tmp_path,
                TERM="xterm",
                PENSIEVE_PORT=str(server.server_port),
                PROMPT_TOOLKIT_NO_CPR="1",
            ),
            cwd=str(tmp_path),
            encoding="utf-8",
            timeout=30,
        )
        child.expect_exact(PASTE_ON)
        child.send("Which?\r")
        child.expect_exact(PASTE_ON)
        child.sendeof()
        child.read()
        child.close()
    assert (tmp_path / "answers").read_text() == "Paris.\n"


class Gate:
    """Delays an answer until it is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def delayed(self, before: str, after: str) -> Iterator[Event]:
        yield delta(before)
        assert self._opened.wait(30)
        yield from message(after)


def test_drawing_follows_terminal_resizes(tmp_path: Path) -> None:
    gate = Gate()
    words = "one two three four five six seven eight nine ten "
    with serving(gate.delayed(words, "eleven twelve")) as server:
        person = Person(server, tmp_path)
        person.types("Count")
        person.child.expect("ten")
        person.child.setwinsize(24, 20)
        gate.open()
        person.child.expect("twelve")
        drawn = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", person.child.before)
        person.leaves()
    lines = re.split(r"[\r\n]+", drawn.strip())
    assert lines[:2] == ["one two three four", "five six seven eight"]
    assert max(map(len, lines)) <= 20


def test_the_editor_is_not_loaded_for_a_single_question(tmp_path: Path) -> None:
    """Its import takes longer than the rest of a question."""
    program = (
        "import sys; from pensieve.cli.app import run; run(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    with serving(message("x")) as server:
        done = run_program(
            [sys.executable, "-c", program, "chat", "Hi"],
            env=environment(tmp_path, PENSIEVE_PORT=str(server.server_port)),
            stdin=subprocess.DEVNULL,
        )
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {"prompt_toolkit", "markdown_it"}
