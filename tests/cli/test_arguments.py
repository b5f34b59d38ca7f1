"""No command line is a fault of the program: what cannot be read is refused in words, exit code 2."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout, suppress

import pytest
from cyclopts import CycloptsError
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.cli.app import ALIASES, COMMANDS, EVERYWHERE, SHORT, command_of, run
from pensieve.errors import UsageError
from pensieve.keys import KEYS
from pensieve.settings import variables_set

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
]


@settings(max_examples=250, deadline=None)
@given(st.lists(WORD, max_size=6))
def test_any_words_are_a_command_or_refused(words: list[str]) -> None:
    with suppress(UsageError, CycloptsError):
        assert callable(command_of(words))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(HARMLESS), st.lists(st.one_of(VALUE, TEXT, DASHED, OPTION), max_size=2))
def test_no_words_make_a_command_report_a_fault_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, command: list[str], words: list[str]
) -> None:
    home = tmp_path_factory.mktemp("home")
    said = io.StringIO()
    variables = {"PENSIEVE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with variables_set(variables), redirect_stdout(io.StringIO()), redirect_stderr(said):
        assert run([*command, *words]) in {0, 1, 2, 65, 69, 73, 78}
    assert "fault of its own" not in said.getvalue()


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
