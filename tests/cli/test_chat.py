"""`pensieve chat` as a person and a script see it. The server is a fake one; the terminal is a real pseudo-terminal."""

import re
import sys
from pathlib import Path

import pexpect
import pytest

from pensieve.cli.chat import Figures
from tests.cli.fake_server import FakeServer, endlessly, message, refuse, serving
from tests.cli.program import PROGRAM, environment, pensieve

# pexpect forks; the fake server's thread holds no lock that a child could miss before it executes pensieve.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

FIGURES = re.compile(r"\d+ tokens in \d+\.\d s")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def asked(server: FakeServer) -> list[list[dict[str, str]]]:
    return [body["messages"] for _, body in server.calls]  # type: ignore[misc]


def on_terminal(
    server: FakeServer, home: Path, *words: str, **variables: str
) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], "chat", *words],
        env=environment(
            home, **{"TERM": "xterm", "PENSIEVE_PORT": str(server.server_port), **variables}
        ),
        cwd=str(home),
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 80),
    )


def finished(child: "pexpect.spawn[str]") -> tuple[int, str]:
    said = child.read()
    child.close()
    return child.exitstatus, said.replace("\r\n", "\n")


# for scripts


def test_outside_a_terminal_there_is_the_answer_and_nothing_else(tmp_path: Path) -> None:
    with serving(message("The capital ", "is Paris.")) as server:
        done = pensieve("chat", "Which?", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
        headers, body = server.calls[0]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"The capital is Paris.\n", b"")
    assert body["messages"] == [{"role": "user", "content": "Which?"}]
    assert (body["max_tokens"], body["temperature"]) == (1024, 0.0)
    assert "system" not in body
    assert headers["x-api-key"] == "pensieve-local-key"


def test_what_is_piped_in_comes_before_the_question(tmp_path: Path) -> None:
    with serving(message("x"), message("x")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port)}
        pensieve("chat", "Sum", "up.", home=tmp_path, stdin="größe\n\n".encode(), **where)
        pensieve("chat", home=tmp_path, stdin=b"Only this?\n", **where)
    assert [turns[0]["content"] for turns in asked(server)] == ["größe\n\nSum up.", "Only this?"]


def test_the_flags_reach_the_call(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        pensieve(
            *["chat", "-s", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "--", "-v?"],
            home=tmp_path,
            PENSIEVE_PORT=str(server.server_port),
            PENSIEVE_API_KEY="own-key",
        )
        headers, body = server.calls[0]
    assert (body["system"], body["max_tokens"], body["temperature"]) == ("Be brief.", 7, 0.5)
    assert asked(server) == [[{"role": "user", "content": "-v?"}]]
    assert headers["x-api-key"] == "own-key"


def test_figures_are_shown_where_they_are_asked_for(tmp_path: Path) -> None:
    with serving(message("a", "b")) as server:
        done = pensieve(
            "chat", "?", "--stats", home=tmp_path, PENSIEVE_PORT=str(server.server_port)
        )
    assert done.stdout == b"ab\n"
    assert FIGURES.match(done.stderr.decode())


def test_an_answer_that_was_cut_short_is_told(tmp_path: Path) -> None:
    with serving(message("a", stop_reason="max_tokens")) as server:
        done = pensieve(
            *["chat", "?", "--max-tokens", "1"],
            home=tmp_path,
            PENSIEVE_PORT=str(server.server_port),
        )
    assert done.stdout == b"a\n"
    assert b"--max-tokens 1" in done.stderr


def test_a_model_cannot_drive_the_terminal(tmp_path: Path) -> None:
    with serving(message("a\x1b]0;ow", "ned\x07b\x1b[2", "Jc\r\x9b1m\ud800")) as server:
        done = pensieve("chat", "?", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    assert done.stdout == b"abc?\n"


def test_without_a_server_the_command_that_starts_it_is_told(tmp_path: Path) -> None:
    with serving() as server:
        port = server.server_port
    done = pensieve("chat", "Hi", home=tmp_path, PENSIEVE_PORT=str(port))
    assert done.returncode == 69
    assert done.stdout == b""
    assert f"127.0.0.1:{port}" in done.stderr.decode()
    assert b"pensieve start" in done.stderr


def test_without_a_question_and_without_a_terminal_it_does_not_wait(tmp_path: Path) -> None:
    for stdin in (None, b"", b" \n"):
        done = pensieve("chat", home=tmp_path, stdin=stdin)
        assert done.returncode == 2
        assert b"pensieve chat" in done.stderr


def test_a_refusal_is_told_in_the_servers_words(tmp_path: Path) -> None:
    with serving(refuse(400, "prompt is too long: 9 tokens > 8 maximum")) as server:
        done = pensieve("chat", "Hi", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    assert done.returncode == 1
    assert b"prompt is too long" in done.stderr
    assert b"Traceback" not in done.stderr


# on a terminal


@pytest.mark.parametrize(
    ("variables", "is_dim"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_on_a_terminal_a_last_line_tells_how_fast_it_was(
    variables: dict[str, str], is_dim: bool, tmp_path: Path
) -> None:
    with serving(message("Par", "is")) as server:
        code, said = finished(on_terminal(server, tmp_path, "Which?", **variables))
    assert code == 0
    assert ESCAPES.sub("", said).startswith("Paris\n2 tokens in ")
    assert ("\x1b[2m2 tokens" in said) is is_dim
    assert ("\x1b" in said) is is_dim


def test_a_conversation_keeps_what_was_said(tmp_path: Path) -> None:
    with serving(message("Paris."), message("Two million.")) as server:
        child = on_terminal(server, tmp_path, "-s", "Be brief.")
        child.expect("> ")
        child.sendline("Capital of France?")
        child.expect("Paris.")
        child.expect("> ")
        child.sendline("   ")
        child.expect("> ")
        child.sendline("How many live there?")
        child.expect("Two million.")
        child.expect("> ")
        child.sendeof()
        code, _ = finished(child)
    assert code == 0
    assert asked(server)[1] == [
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "How many live there?"},
    ]
    assert [body["system"] for _, body in server.calls] == ["Be brief."] * 2


def test_ctrl_c_ends_the_answer_and_not_the_conversation(tmp_path: Path) -> None:
    with serving(endlessly("Once upon"), message("The end.")) as server:
        child = on_terminal(server, tmp_path)
        child.expect("> ")
        child.sendline("Tell me a story")
        child.expect("Once upon")
        child.sendintr()
        child.expect("ended")
        assert server.has_lost_client.wait(10)
        child.expect("> ")
        child.sendline("Finish it")
        child.expect("The end.")
        child.expect("> ")
        child.sendeof()
        code, _ = finished(child)
    assert code == 0
    assert asked(server)[1][1] == {"role": "assistant", "content": "Once upon"}


def test_ctrl_c_twice_at_an_empty_prompt_leaves(tmp_path: Path) -> None:
    with serving() as server:
        child = on_terminal(server, tmp_path)
        child.expect("> ")
        child.sendintr()
        child.expect("again leaves")
        child.expect("> ")
        child.sendintr()
        code, said = finished(child)
    assert code == 130
    assert "Traceback" not in said


def test_ctrl_c_ends_a_single_question(tmp_path: Path) -> None:
    with serving(endlessly("Once upon")) as server:
        child = on_terminal(server, tmp_path, "A story")
        child.expect("Once upon")
        child.sendintr()
        code, said = finished(child)
        assert server.has_lost_client.wait(10)
    assert code == 130
    assert "Traceback" not in said


def test_a_conversation_outlives_an_error(tmp_path: Path) -> None:
    with serving(refuse(529, "the model is loading"), message("Paris.")) as server:
        child = on_terminal(server, tmp_path)
        child.expect("> ")
        child.sendline("First")
        child.expect("the model is loading")
        child.expect("> ")
        child.sendline("Second")
        child.expect("Paris.")
        child.expect("> ")
        child.sendeof()
        finished(child)
    assert asked(server)[1] == [{"role": "user", "content": "Second"}]


@pytest.fixture
def fetch_program() -> list[str]:
    """A fetch of 50 MB, for the bar."""
    return [
        "-c",
        "from pensieve.cli.progress import for_terminal\n"
        "p = for_terminal()\n"
        "p.begin('phi-3-mini', 50_000_000)\n"
        "for _ in range(50): p.advance(1_000_000)\n"
        "p.end()",
    ]


def test_a_terminal_shows_one_bar(fetch_program: list[str], tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        fetch_program,
        env=environment(tmp_path, TERM="xterm"),
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 80),
    )
    code, said = finished(child)
    assert code == 0
    assert "50.0/50.0 MB" in said
    assert "phi-3-mini" in said
    assert max(len(ESCAPES.sub("", line)) for line in re.split(r"[\r\n]", said)) <= 80


def test_a_long_error_is_broken_between_words(tmp_path: Path) -> None:
    words = ["incomprehensibilities"] * 12
    with serving(refuse(400, " ".join(words))) as server:
        code, said = finished(on_terminal(server, tmp_path, "Hi"))
    assert code == 1
    assert max(len(line) for line in ESCAPES.sub("", said).splitlines()) < 80
    assert said.count("incomprehensibilities") == 12


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_plain_terminal_shows_lines(
    variables: dict[str, str], fetch_program: list[str], tmp_path: Path
) -> None:
    child = pexpect.spawn(
        sys.executable,
        fetch_program,
        env=environment(tmp_path, **variables),
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 80),
    )
    _, said = finished(child)
    assert "\x1b" not in said
    assert said.count("\n") == 11


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (
            Figures(101, 0.5, 10.5),
            "101 tokens in 10.5 s (first after 0.5 s), 10.0 tokens per second",
        ),
        (Figures(1, 0.5, 0.6), "1 tokens in 0.6 s"),
        (Figures(0, 0.2, 0.2), "0 tokens in 0.2 s"),
        (Figures(9, 0.2, 0.2), "9 tokens in 0.2 s"),
    ],
)
def test_the_rate_is_that_of_decoding(figures: Figures, words: str) -> None:
    assert str(figures) == words
