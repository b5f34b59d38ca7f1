"""Any command line is parsed or refused with exit code 2, never an internal error."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.cli.app import ALIASES, COMMANDS, COMMON_OPTIONS, SHORT_OPTIONS, parse_command, run
from pensieve.errors import UsageError
from pensieve.settings.resolve import variables_set
from pensieve.settings.spec import KEYS

# os.fsdecode() makes lone surrogates of bytes that are no UTF-8.
TEXT = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
OPTION = st.sampled_from(
    [
        *("--help", "-h", "--version", "--port", "--host", "--model", "--device", "--json", "-n"),
        *("--shell", "--unset", "--yes", "--system", "--max-tokens", "--context", "--bundle", "--"),
        *COMMON_OPTIONS,
        *SHORT_OPTIONS,
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
# Too long for a random search, so each is tried on every command.
LONG = ["9" * 10_000, "x" * 100_000, "-" + "9" * 10_000, "\udc80" * 50_000, "--" + "a" * 100_000]

FREE = [
    *(["show"], ["rm", "--yes"], ["pull"], ["plan", "--model"], ["restart", "--model"]),
    *(["start", "--device", "cpu", "--model"], ["config", "get"]),
]
# None can be written: the only names for commands that write.
UNWRITABLE = ["/" + "x" * 100_000, "/a" * 50_000, "/", "/\ud800"]
PATHS = [*UNWRITABLE, "a/b@" + "c" * 300, "/dev/zero"]  # read, never written


@settings(max_examples=250)
@given(st.lists(WORD, max_size=6))
def test_any_arguments_parse_or_are_refused(arguments: list[str]) -> None:
    with suppress(UsageError, CycloptsError):
        assert callable(parse_command(arguments))


@settings(max_examples=150)
@given(st.sampled_from(HARMLESS), st.lists(st.one_of(VALUE, TEXT, DASHED, OPTION), max_size=2))
def test_no_arguments_cause_an_internal_error(
    tmp_path_factory: pytest.TempPathFactory, command: list[str], arguments: list[str]
) -> None:
    home = tmp_path_factory.mktemp("home")
    printed = io.StringIO()
    variables = {"PENSIEVE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with variables_set(variables), redirect_stdout(io.StringIO()), redirect_stderr(printed):
        assert run([*command, *arguments]) in {0, 1, 2, 3, 65, 69, 73, 78}
    assert "Internal error" not in printed.getvalue()


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES, "help", "config set", "config get", ""])
@pytest.mark.parametrize("argument", LONG, ids=["digits", "text", "negative", "bytes", "option"])
def test_long_argument_is_refused_in_a_short_message(
    name: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*name.split(), argument, "--bogus-option"]
    if name in {"claude", "chat"}:  # they pass on unknown options
        arguments = [name, "--thinking" if name == "claude" else "--max-tokens", argument]
    assert run(arguments) == 2
    printed = capsys.readouterr().err
    assert "Internal error" not in printed
    assert len(printed) < 13_000


@pytest.mark.parametrize("command", FREE, ids=" ".join)
def test_no_model_or_file_name_causes_an_internal_error(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {"PENSIEVE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    for name in (*LONG, *PATHS):
        with variables_set(variables):
            assert run([*command, name]) in {1, 2, 65, 69, 73, 78}, name[:40]
        printed = capsys.readouterr().err
        assert "Internal error" not in printed, name[:40]
        assert len(printed) < 13_000, name[:40]


@pytest.mark.parametrize("name", UNWRITABLE, ids=["name", "path", "root", "surrogate"])
def test_bundle_with_an_impossible_file_name_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with variables_set({"PENSIEVE_HOME": str(tmp_path), "HOME": str(tmp_path)}):
        assert run(["doctor", "--bundle", name]) == 73
    printed = capsys.readouterr().err
    assert "cannot be written" in printed
    assert len(printed) < 13_000


@pytest.mark.parametrize("arguments", [["start", "--port"], ["logs", "-n"], ["plan", "--ram"]])
@pytest.mark.parametrize("value", ["0x", "-1", "65537000", "1e999", "\udcff", "9" * 10_000, ""])
def test_invalid_value_names_allowed_values_an_example_and_help(
    arguments: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, value]) == 2
    printed = capsys.readouterr().err
    assert f"for {arguments[-1]}. It can be a " in printed
    assert ", such as " in printed
    assert printed.endswith(f"Show the usage:\n  pensieve {arguments[0]} --help\n")


@pytest.mark.parametrize(
    ("arguments", "command", "allowed"),
    [
        (["start", "--device", "tpu"], "start", "'gpu' or 'cpu'"),
        (["start", "--device"], "start", "'gpu' or 'cpu'"),
        (["start", "--speculation", "on"], "start", "'auto' or 'off'"),
        (["restart", "--speculation"], "restart", "'auto' or 'off'"),
        (["restart", "--host", ""], "restart", "such as 127.0.0.1"),
        (["start", "--no-wait=maybe"], "start", "true or false"),
        (["env", "--shell"], "env", "bash, zsh"),
        (["env", "--shell", "csh"], "env", '"bash", "zsh"'),
        (["chat", "--temperature", "7"], "chat", "from 0 to 2, such as 0.7"),
        (["config", "set"], "config set", "NAME needs a value"),
        (["config", "frob"], "config", "path, list"),
        (["start", "extra"], "start", 'Unexpected argument "extra"'),
        (["start", "--port", "1", "--port", "2"], "start", "multiple times"),
        (["cache", "show", "clear"], "cache", 'Unexpected argument "clear"'),
    ],
)
def test_usage_error_names_allowed_values_and_help(
    arguments: list[str], command: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr().err
    assert allowed in printed
    assert printed.endswith(f"\n  pensieve {command} --help\n")


@pytest.mark.parametrize(
    ("arguments", "refusal"),
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
def test_invalid_argument_exits_with_usage_error(
    arguments: list[str], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert refusal in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help", "start"], "Usage: pensieve start"),
        (["help", "help"], "Usage: pensieve COMMAND"),
        (["-h", "exit-codes"], "the command line is invalid"),
        (["--version", "please"], "pensieve "),
    ],
)
def test_help_works_before_and_after_the_command(
    arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "--workers", "1.5"],
        ["start", "--port", "7777.5"],
        ["logs", "--lines", "2.5"],
        ["plan", "--ram", "16.4"],
        ["bench", "--time", "10.9"],
        ["keys", "add", "anna", "--concurrent", "1.5"],
        ["chat", "--max-tokens", "1.5", "-p", "x"],
    ],
)
def test_a_fraction_is_no_whole_number(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert arguments[-1] in capsys.readouterr().err or arguments[0] == "chat"
