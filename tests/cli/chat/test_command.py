"""`pensieve chat` in scripts and on a pseudo-terminal, against the fake server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from pensieve.cli.chat.receive import AnswerTiming
from pensieve.errors import PensieveError, PromptTooLongError, PromptUnprocessableError
from tests.cli.fake_server import FakeServer, endlessly, message, refuse, serving, text_of
from tests.cli.program import OWN_KEY, PROGRAM, environment, pensieve

# pexpect forks. The fake server's thread holds no lock that the child needs before its exec.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

USAGE = {
    "input_tokens": 3,
    "output_tokens": 2,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens_details": {"thinking_tokens": 0},
    "server_tool_use": None,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "service_tier": "standard",
}
FIGURES = re.compile(r"\d+ tokens in \d+\.\d s")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def questions(server: FakeServer) -> list[list[str]]:
    return [[text_of(turn) for turn in body["messages"]] for _, body in server.calls]  # type: ignore[misc]


def on_terminal(
    server: FakeServer, home: Path, *arguments: str, **variables: str
) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], "chat", *arguments],
        env=environment(
            home, **{"TERM": "xterm", "PENSIEVE_PORT": str(server.server_port), **variables}
        ),
        cwd=str(home),
        encoding="utf-8",
        timeout=20,
        dimensions=(24, 80),
    )


def finished(child: "pexpect.spawn[str]") -> tuple[int, str]:
    output = child.read()
    child.close()
    return child.exitstatus, output.replace("\r\n", "\n")


# for scripts


def test_without_a_terminal_only_the_answer_is_printed(tmp_path: Path) -> None:
    with serving(message("The capital ", "is Paris.")) as server:
        done = pensieve("chat", "Which?", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
        headers, body = server.calls[0]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"The capital is Paris.\n", b"")
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]
    assert body["max_tokens"] == 4096
    # Unset fields use the model's own sampling.
    assert not {"system", "temperature", "top_p", "top_k"} & body.keys()
    assert headers["x-api-key"] == OWN_KEY


def test_piped_input_precedes_the_question(tmp_path: Path) -> None:
    with serving(message("x"), message("x")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port)}
        pensieve("chat", "Sum", "up.", home=tmp_path, stdin="größe\n\n".encode(), **where)
        pensieve("chat", home=tmp_path, stdin=b"Only this?\n", **where)
    assert questions(server) == [["größe\n\nSum up."], ["Only this?"]]


def test_flags_reach_the_request(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        pensieve(
            *["chat", "-s", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "--", "-v?"],
            home=tmp_path,
            PENSIEVE_PORT=str(server.server_port),
        )
        headers, body = server.calls[0]
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert (body["max_tokens"], body["temperature"]) == (7, 0.5)
    assert questions(server) == [["-v?"]]
    assert headers["x-api-key"] == OWN_KEY


def test_stats_are_shown_on_request(tmp_path: Path) -> None:
    with serving(message("a", "b")) as server:
        done = pensieve(
            "chat", "?", "--stats", home=tmp_path, PENSIEVE_PORT=str(server.server_port)
        )
    assert done.stdout == b"ab\n"
    assert FIGURES.match(done.stderr.decode())


def test_truncated_answer_is_reported(tmp_path: Path) -> None:
    with serving(message("a", stop_reason="max_tokens")) as server:
        done = pensieve(
            *["chat", "?", "--max-tokens", "1"],
            home=tmp_path,
            PENSIEVE_PORT=str(server.server_port),
        )
    assert done.stdout == b"a\n"
    assert b"--max-tokens 1" in done.stderr


def test_a_model_cannot_drive_the_terminal(tmp_path: Path) -> None:
    with serving(message("a\x1b]0;ow", "ned\x07b\x1b[2", "Jc\r\x9b1m")) as server:
        done = pensieve("chat", "?", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    assert done.stdout == b"abc\n"


def test_without_a_server_the_start_command_is_shown(tmp_path: Path) -> None:
    with serving() as server:
        port = server.server_port
    done = pensieve("chat", "Hi", home=tmp_path, PENSIEVE_PORT=str(port))
    assert done.returncode == 69
    assert done.stdout == b""
    assert f"127.0.0.1:{port}" in done.stderr.decode()
    assert b"pensieve start" in done.stderr


def test_without_question_and_terminal_chat_fails_at_once(tmp_path: Path) -> None:
    for stdin in (None, b"", b" \n"):
        done = pensieve("chat", home=tmp_path, stdin=stdin)
        assert done.returncode == 2
        assert b"pensieve chat" in done.stderr


def test_refusal_shows_the_servers_message(tmp_path: Path) -> None:
    with serving(refuse(400, "prompt is too long: 9 tokens > 8 maximum")) as server:
        done = pensieve("chat", "Hi", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    assert done.returncode == 1
    assert b"The question has 9 tokens; the model's context is 8." in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("refusal", "message", "chars"),
    [
        (
            PromptTooLongError(4000, 1000),
            "The question has 4,000 tokens; the model's context is 1,000.",
            3750,  # a quarter of the context is for the answer
        ),
        (PromptUnprocessableError(2, 4000, 1000), "the engine ended 2 times", 5000),
    ],
)
def test_too_long_piped_text_is_refused_with_a_length_that_fits(
    refusal: PensieveError, message: str, chars: int, tmp_path: Path
) -> None:
    with serving(refuse(400, refusal.message)) as server:
        where = {"PENSIEVE_PORT": str(server.server_port)}
        done = pensieve("chat", home=tmp_path, stdin=b"x" * 20_000, **where)
    printed = done.stderr.decode()
    assert done.returncode == 1
    assert message in printed
    assert f"about {chars:,} of its 20,000 characters:\n  head -c {chars} FILE" in printed
    assert "  pensieve models\n" in printed


def test_temperatures_up_to_the_apis_limit_are_sent(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port)}
        assert pensieve("chat", "?", "--temperature", "2", home=tmp_path, **where).returncode == 0
        ((_, body),) = server.calls
    assert body["temperature"] == 2


def test_the_answer_can_be_one_json_object(tmp_path: Path) -> None:
    with serving(message("é ", "\x1b[1m", thoughts=["Hm."], stop_reason="max_tokens")) as server:
        server.thinks = True
        done = pensieve("chat", "?", "--json", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
        (_, body), *_ = server.calls
    output = json.loads(done.stdout)
    timings = output.pop("timings")
    assert output == {
        "text": "é \x1b[1m",
        "thinking": "Hm.",
        "model": "tiny",
        "stop_reason": "max_tokens",
        "usage": USAGE,
    }
    assert timings.keys() == {"first_text_s", "total_s", "tokens_per_second"}
    assert 0 < timings["first_text_s"] <= timings["total_s"]
    assert b"\x1b" not in done.stdout
    assert body["thinking"] == {"type": "adaptive"}


def test_a_thought_is_no_part_of_the_answer_in_a_pipe(tmp_path: Path) -> None:
    with serving(message("Paris.", thoughts=["Hm."])) as server:
        done = pensieve("chat", "?", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    assert (done.stdout, done.stderr) == (b"Paris.\n", b"")


@pytest.mark.parametrize("flags", [("-p",), ("--print",), ("--json",)])
def test_print_and_json_never_start_a_conversation(flags: tuple[str, ...], tmp_path: Path) -> None:
    with serving() as server:
        code, output = finished(on_terminal(server, tmp_path, *flags))
    assert code == 2
    assert "There is no question" in output


def test_markdown_in_a_pipe_is_unchanged_even_with_colour(tmp_path: Path) -> None:
    with serving(message("**b** `c`\n\n| a |\n|---|\n")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port), "FORCE_COLOR": "1"}
        done = pensieve("chat", "?", home=tmp_path, **where)
    assert done.stdout == b"**b** `c`\n\n| a |\n|---|\n\n"


def test_closed_pipe_during_an_answer_is_no_error(tmp_path: Path) -> None:
    with serving(message(*["a line\n"] * 20_000)) as server:
        done = subprocess.run(
            ["/bin/sh", "-c", '"$@" chat "?" | head -n 1', "sh", *PROGRAM],
            env=environment(tmp_path, PENSIEVE_PORT=str(server.server_port)),
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert (done.stdout, done.stderr) == (b"a line\n", b"")


def test_requested_model_must_be_the_served_one(tmp_path: Path) -> None:
    with serving(message("x"), message("y")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port)}
        for name in ("tiny", "someone/tiny"):
            assert pensieve("chat", "?", "-m", name, home=tmp_path, **where).returncode == 0
        other = pensieve("chat", "?", "--model", "phi-3-mini", home=tmp_path, **where)
        missing = pensieve("chat", "?", "--model", "nosuch", home=tmp_path, **where)
    assert other.returncode == 1
    assert b"serves tiny, not phi-3-mini" in other.stderr
    assert b"pensieve restart --model phi-3-mini" in other.stderr
    assert missing.returncode == 69
    assert b"There is no model called 'nosuch'" in missing.stderr
    assert b"restart" not in missing.stderr


@pytest.mark.parametrize("language", ["C", "POSIX"])
def test_non_ascii_answer_is_printed_in_the_c_locale(language: str, tmp_path: Path) -> None:
    with serving(message("größe 日本")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port), "PYTHONUTF8": "0"}
        done = pensieve("chat", "?", home=tmp_path, LC_ALL=language, **where)
    assert done.returncode == 0
    assert done.stdout.startswith(b"gr")


# on a terminal


def test_on_a_terminal_markdown_is_drawn_and_with_raw_it_is_not(tmp_path: Path) -> None:
    text = "# Head\n\nSome **bold** text.\n"
    with serving(*[message(text)] * 4) as server:
        _, drawn = finished(on_terminal(server, tmp_path, "?"))
        _, buffered = finished(on_terminal(server, tmp_path, "?", "--no-stream"))
        _, raw = finished(on_terminal(server, tmp_path, "?", "--raw"))
        _, printed = finished(on_terminal(server, tmp_path, "?", "-p"))
    for output in (drawn, buffered):
        assert "\x1b[1mbold\x1b[0m" in output
        assert "#" not in output
    assert raw.startswith(text)
    assert printed == text + "\n"


@pytest.mark.parametrize("flags", [(), ("--raw",), ("--no-stream",)])
def test_a_thought_is_shown_dim_or_hidden(flags: tuple[str, ...], tmp_path: Path) -> None:
    with serving(*[message("Paris.", thoughts=["Let me see."])] * 2) as server:
        server.thinks = True
        _, output = finished(on_terminal(server, tmp_path, "?", *flags))
        _, hidden = finished(on_terminal(server, tmp_path, "?", "--hide-thinking", *flags))
        asked_for = [body["thinking"] for _, body in server.calls]
    assert re.search(r"\x1b\[2(;3)?mLet me see\.\x1b\[0m", output)
    assert "Paris." in output
    assert "Let me see" not in hidden
    assert asked_for == [{"type": "adaptive"}, {"type": "adaptive", "display": "omitted"}]


def test_a_model_that_does_not_think_is_not_asked_to(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        finished(on_terminal(server, tmp_path, "?"))
        assert "thinking" not in server.calls[0][1]


def test_on_a_terminal_the_server_is_started_on_request(tmp_path: Path) -> None:
    """The start fails here, because the model is missing; its messages are visible."""
    with serving() as server:
        pass
    where = {"PENSIEVE_DEVICE": "cpu", "PENSIEVE_MODEL": str(tmp_path / "nothing")}
    child = on_terminal(server, tmp_path, "Hi", **where)
    child.expect("Start it now")
    child.sendline("")
    code, output = finished(child)
    assert code == 69
    assert "nothing" in output
    assert "The server did not start." in output
    refused = on_terminal(server, tmp_path, "Hi", **where)
    refused.expect("Start it now")
    refused.sendline("n")
    code, output = finished(refused)
    assert code == 69
    assert "pensieve start" in output


@pytest.mark.parametrize(
    ("variables", "is_dim"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_on_a_terminal_the_last_line_shows_timing(
    variables: dict[str, str], is_dim: bool, tmp_path: Path
) -> None:
    with serving(message("Par", "is")) as server:
        code, output = finished(on_terminal(server, tmp_path, "Which?", **variables))
    assert code == 0
    assert ESCAPES.sub("", output).replace("\r", "").endswith("\n")
    assert re.search(r"Paris[\r\n]+2 tokens in ", ESCAPES.sub("", output))
    assert ("\x1b[2m2 tokens" in output) is is_dim
    assert ("\x1b" in output) is is_dim


def test_ctrl_c_ends_a_single_question(tmp_path: Path) -> None:
    with serving(endlessly("Once upon")) as server:
        child = on_terminal(server, tmp_path, "A story")
        child.expect("Once upon")
        child.sendintr()
        code, output = finished(child)
        assert server.has_lost_client.wait(10)
    assert code == 130
    assert "Traceback" not in output


@pytest.fixture
def fetch_program() -> list[str]:
    """A download of 50 MB, for the progress bar."""
    return [
        "-c",
        "from pensieve.cli.ui.progress import for_terminal\n"
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
    code, output = finished(child)
    assert code == 0
    assert "50.0/50.0 MB" in output
    assert "phi-3-mini" in output
    assert max(len(ESCAPES.sub("", line)) for line in re.split(r"[\r\n]", output)) <= 80


def test_a_long_error_is_broken_between_words(tmp_path: Path) -> None:
    arguments = ["incomprehensibilities"] * 12
    with serving(refuse(400, " ".join(arguments))) as server:
        code, output = finished(on_terminal(server, tmp_path, "Hi"))
    assert code == 1
    assert max(len(line) for line in ESCAPES.sub("", output).splitlines()) < 80
    assert output.count("incomprehensibilities") == 12


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
    _, output = finished(child)
    assert "\x1b" not in output
    assert output.count("\n") == 11


@pytest.mark.parametrize(
    ("timing", "arguments"),
    [
        (
            AnswerTiming(101, 0.5, 10.5),
            "101 tokens in 10.5 s (first after 0.5 s), 10.0 tokens per second",
        ),
        (AnswerTiming(1, 0.5, 0.6), "1 token in 0.6 s"),
        (AnswerTiming(0, 0.2, 0.2), "0 tokens in 0.2 s"),
        (AnswerTiming(9, 0.2, 0.2), "9 tokens in 0.2 s"),
    ],
)
def test_the_rate_is_that_of_decoding(timing: AnswerTiming, arguments: str) -> None:
    assert str(timing) == arguments
