"""No command line is a fault of the program: what cannot be read is refused in words, exit code 2."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.cli.app import ALIASES, COMMANDS, EVERYWHERE, SHORT, command_of, run
from pensieve.errors import UsageError
from pensieve.settings.resolve import variables_set
from pensieve.settings.spec import KEYS

# os.fsdecode() makes lone surrogates of bytes that are no UTF-8.
TEXT = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
OPTION = st.sampled_from(
    [
        *("--help", "-h", "--version", "--port", "--host", "--model", "--device", "--json", "-n"),
        *("--shell", "--unset", "--yes", "--system", "--max-tokens", "--context", "--bundle", "--"),
        *EVERYWHERE,
        *SHORT,
    ]
)
DASHED = st.builds("{}{}".format, st.sampled_from(["-", "--", "---", "—"]), TEXT)
VALUE = st.sampled_from(
    ["", " ", "0", "-1", "65536", "9" * 400, "1e999", "nan", "gpu", "=", "help"]
)
WORD = st.one_of(st.sampled_from([*COMMANDS, *ALIASES, "help"]), OPTION, DASHED, VALUE, TEXT)
# They only read, or write into the test's own home.
HARMLESS = [
    *(["show"], ["use"], ["rm", "--yes"], ["plan"], ["completion"], ["env", "--unset"], ["cache"]),
    *(["logs", "-n"], ["config", "get"], ["config", "unset"], ["help"], ["env", "--shell"]),
    *(["config", "set", key.name] for key in KEYS.values() if not key.is_secret),
    *(["status"], ["stop"], ["models"], ["version"], ["update"], ["config", "list"]),
]
# Too long for a random search: each is tried on every command.
LONG = ["9" * 10_000, "x" * 100_000, "-" + "9" * 10_000, "\udc80" * 50_000, "--" + "a" * 100_000]

FREE = [
    *(["show"], ["rm", "--yes"], ["pull"], ["plan", "--model"], ["restart", "--model"]),
    *(["start", "--device", "cpu", "--model"], ["config", "get"]),
]
# None of them can be written: a command that writes to a name is tried with nothing else.
UNWRITABLE = ["/" + "x" * 100_000, "/a" * 50_000, "/", "/\ud800"]
PATHS = [*UNWRITABLE, "a/b@" + "c" * 300, "/dev/zero"]  # read, never written


@settings(max_examples=250)
@given(st.lists(WORD, max_size=6))
def test_any_words_are_a_command_or_refused(words: list[str]) -> None:
    with suppress(UsageError, CycloptsError):
        assert callable(command_of(words))


@settings(max_examples=150)
@given(st.sampled_from(HARMLESS), st.lists(st.one_of(VALUE, TEXT, DASHED, OPTION), max_size=2))
def test_no_words_make_a_command_report_a_fault_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, command: list[str], words: list[str]
) -> None:
    home = tmp_path_factory.mktemp("home")
    said = io.StringIO()
    variables = {"PENSIEVE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with variables_set(variables), redirect_stdout(io.StringIO()), redirect_stderr(said):
        assert run([*command, *words]) in {0, 1, 2, 3, 65, 69, 73, 78}
    assert "fault of its own" not in said.getvalue()


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES, "help", "config set", "config get", ""])
@pytest.mark.parametrize("word", LONG, ids=["digits", "text", "negative", "bytes", "option"])
def test_a_word_of_any_length_is_refused_in_a_message_that_can_be_read(
    name: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*name.split(), word, "--bogus-option"]
    if name in {"claude", "chat"}:  # they hand on what they do not know
        words = [name, "--thinking" if name == "claude" else "--max-tokens", word]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "fault of its own" not in said
    assert len(said) < 13_000


@pytest.mark.parametrize("command", FREE, ids=" ".join)
def test_no_name_of_a_model_or_file_is_a_fault_of_the_program(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {"PENSIEVE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    for name in (*LONG, *PATHS):
        with variables_set(variables):
            assert run([*command, name]) in {1, 2, 65, 69, 73, 78}, name[:40]
        said = capsys.readouterr().err
        assert "fault of its own" not in said, name[:40]
        assert len(said) < 13_000, name[:40]


@pytest.mark.parametrize("name", UNWRITABLE, ids=["name", "path", "root", "surrogate"])
def test_a_report_under_a_name_that_no_file_can_have_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with variables_set({"PENSIEVE_HOME": str(tmp_path), "HOME": str(tmp_path)}):
        assert run(["doctor", "--bundle", name]) == 73
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert len(said) < 13_000


@pytest.mark.parametrize("words", [["start", "--port"], ["logs", "-n"], ["plan", "--ram"]])
@pytest.mark.parametrize("value", ["0x", "-1", "65537000", "1e999", "\udcff", "9" * 10_000, ""])
def test_a_wrong_value_is_told_with_what_is_allowed_an_example_and_the_commands_own_help(
    words: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, value]) == 2
    said = capsys.readouterr().err
    assert f"for {words[-1]}. It can be a " in said
    assert ", such as " in said
    assert said.endswith(f"See how it is used:\n  pensieve {words[0]} --help\n")


@pytest.mark.parametrize(
    ("words", "command", "allowed"),
    [
        (["start", "--device", "tpu"], "start", "'gpu' or 'cpu'"),
        (["start", "--device"], "start", "'gpu' or 'cpu'"),
        (["restart", "--host", ""], "restart", "such as 127.0.0.1"),
        (["start", "--no-wait=maybe"], "start", "true or false"),
        (["env", "--shell"], "env", "bash, zsh"),
        (["env", "--shell", "csh"], "env", '"bash", "zsh"'),
        (["chat", "--temperature", "7"], "chat", "from 0 to 1, such as 0.7"),
        (["config", "set"], "config set", "NAME needs a value"),
        (["config", "frob"], "config", "path, list"),
        (["start", "extra"], "start", 'no place for "extra"'),
        (["start", "--port", "1", "--port", "2"], "start", "multiple times"),
        (["cache", "show", "clear"], "cache", 'no place for "clear"'),
    ],
)
def test_an_error_of_the_command_line_names_what_is_allowed_and_the_commands_own_help(
    words: list[str], command: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    said = capsys.readouterr().err
    assert allowed in said
    assert said.endswith(f"\n  pensieve {command} --help\n")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--bogus"], 'Unknown option "--bogus"'),
        (["--start"], 'Did you mean "start"?'),
        (["--verson"], 'Did you mean "--version"?'),
        (["-1"], 'Unknown option "-1"'),
        (["--", "start"], 'Unknown option "--"'),
        (["statr"], 'Did you mean "start"?'),
        (["__init__"], 'Unknown command "__init__"'),
        (["start", "--prot", "1"], "Did you mean --port?"),
    ],
)
def test_a_wrong_word_is_a_wrong_command_line(
    words: list[str], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert refusal in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help", "start"], "Usage: pensieve start"),
        (["help", "help"], "Usage: pensieve COMMAND"),
        (["-h", "exit-codes"], "the command line is wrong"),
        (["--version", "please"], "pensieve "),
    ],
)
def test_help_is_found_from_both_sides(
    words: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 0
    assert shown in capsys.readouterr().out
