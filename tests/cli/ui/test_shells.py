"""Real shells give their children exactly the exported values."""

import shutil
import string
import sys
from pathlib import Path
from typing import get_args

import pytest

from pensieve.cli.ui.shells import Copy, Shell, dotenv, exports, shell_of, unsets, usage
from pensieve.errors import SettingsError
from tests.cli.program import shell_program
from tests.support.programs import run_program

VALUES = [
    "plain",
    "",
    "http://127.0.0.1:7777",
    "two words",
    "it's",
    "'",
    "''\\'",
    '"',
    "$HOME ${HOME} $(id) `id`",
    "back\\slash\\",
    "\\'",
    "a;b&c|d>e<f",
    "*?[a]{b,c}~#!",
    "!history",
    "-n",
    "=x",
    "größe 🙂",
    string.punctuation,
]
COMMANDS: list[tuple[Shell, list[str]]] = [
    ("bash", ["bash", "--norc"]),
    ("zsh", ["zsh", "-f"]),
    ("sh", ["dash"]),
    ("sh", ["sh"]),
    ("fish", ["fish", "--no-config"]),
    ("nu", ["nu", "--no-config-file"]),
    ("pwsh", ["pwsh", "-NoProfile"]),
]


def environment_after(
    command: list[str], script: str, home: Path, **variables: str
) -> dict[str, str]:
    """Return the environment of the shell's child after `script`."""
    name, *options = command
    done = run_program(
        [shell_program(name), *options, "-c", f"{script}; env -0"],
        env={
            "PATH": "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin",
            "HOME": str(home),
            **variables,
        },
    )
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


@pytest.mark.parametrize(("shell", "command"), COMMANDS, ids=str)
def test_child_of_each_shell_gets_exported_values_until_unset(
    shell: Shell, command: list[str], tmp_path: Path
) -> None:
    values = {f"P{n}": value for n, value in enumerate(VALUES)}
    setting, unsetting = tmp_path / "exports", tmp_path / "unsets"
    setting.write_text(exports(shell, values) + "\n# a comment\n", encoding="utf-8")
    again = {"CHANGED": "it's as before", "MADE": ""}
    undone = unsets(shell, [*values, "NONE"], again)
    unsetting.write_text(f"{undone}\n# a comment\n", encoding="utf-8")
    read = usage(shell, f"cat {setting}")
    got = environment_after(command, read, tmp_path, MINE="kept")
    assert {name: got.get(name) for name in values} == values
    taken = usage(shell, f"cat {unsetting}", is_unset=True)
    own = {"MINE": "kept", "CHANGED": "changed", "MADE": "new"}
    left = environment_after(command, f"{read}; {taken}", tmp_path, **own)
    assert left.keys() & values.keys() == set()
    assert (left["MINE"], left["CHANGED"]) == ("kept", "it's as before")
    assert "MADE" not in left


@pytest.mark.parametrize(("shell", "command"), COMMANDS[:5], ids=str)
def test_exports_are_a_sourceable_script(shell: Shell, command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "exports"
    file.write_text(exports(shell, {"P": "it's $HOME"}) + "\n", encoding="utf-8")
    reading = "source" if shell == "fish" else "."
    assert environment_after(command, f"{reading} {file}", tmp_path)["P"] == "it's $HOME"


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("it's", "'it''s'"),
        ('$HOME `n "x" \\', "'$HOME `n \"x\" \\'"),
        ("a\u2018b\u2019c\u201ad\u201b", "'a\u2018\u2018b\u2019\u2019c\u201a\u201ad\u201b\u201b'"),
        ("", "''"),
    ],
)
def test_powershell_quotes_are_doubled_including_typographic_ones(value: str, quoted: str) -> None:
    assert exports("pwsh", {"P": value}) == f"$env:P = {quoted}"


@pytest.mark.parametrize("shell", get_args(Shell))
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x1b[0m", "\0"])
def test_multiline_value_is_refused(shell: Shell, value: str) -> None:
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        exports(shell, {"ANTHROPIC_API_KEY": value})


@pytest.mark.parametrize(
    ("path", "shell"),
    [
        ("/bin/bash", "bash"),
        ("/usr/local/bin/zsh", "zsh"),
        ("/opt/homebrew/bin/fish", "fish"),
        ("/bin/dash", "sh"),
        ("", "sh"),
        ("/opt/bash/bin/nu", "nu"),
        ("/usr/local/bin/pwsh", "pwsh"),
        ("/bin/tcsh", "sh"),
    ],
)
def test_shell_is_recognized_by_its_name(path: str, shell: Shell) -> None:
    assert shell_of(path) == shell


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("zsh", 'export MINE="$THEIRS"'),
        ("fish", "set -gx MINE $THEIRS"),
        ("nu", '  MINE: "it\'s"'),
        ("pwsh", "$env:MINE = $env:THEIRS"),
    ],
)
def test_a_copy_names_its_source_where_the_shell_can(shell: Shell, line: str) -> None:
    copy = Copy("MINE", "THEIRS", "it's")
    assert line in exports(shell, {"THEIRS": "ours"}, [copy]).splitlines()
    undone = unsets(shell, ["MINE"], kept=[copy]).splitlines()
    assert line in undone
    assert any("THEIRS" in each for each in undone if each != line)


NU_UNSETTING = (
    "x | from nuon | do --env { let them = $in;"
    " hide-env --ignore-errors ...$them.hide; load-env $them.load}"
)


@pytest.mark.parametrize(
    ("shell", "setting", "unsetting"),
    [
        ("zsh", 'eval "$(x)"', 'eval "$(x)"'),
        ("fish", "x | source", "x | source"),
        ("nu", "x | from nuon | load-env", NU_UNSETTING),
        ("pwsh", "x | Out-String | Invoke-Expression", "x | Out-String | Invoke-Expression"),
    ],
)
def test_usage_matches_each_shell(shell: Shell, setting: str, unsetting: str) -> None:
    assert (usage(shell, "x"), usage(shell, "x", is_unset=True)) == (setting, unsetting)


@pytest.mark.parametrize("value", [value for value in VALUES if not set(value) & set("'\\$")])
def test_dotenv_value_is_the_same_for_python_node_and_sh(value: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(dotenv("P", value) + "\n", encoding="utf-8")
    readers = {
        "node": [
            "-e",
            "process.stdout.write(util.parseEnv(fs.readFileSync(process.argv[1], 'utf8')).P)",
        ],
        sys.executable: [
            "-c",
            "import dotenv, sys; print(end=dotenv.dotenv_values(sys.argv[1])['P'])",
        ],
        "sh": ["-c", '. "$0"; printf %s "$P"'],
    }
    for reader, script in readers.items():
        if shutil.which(reader):
            command = [reader, *script, str(file)]
            done = run_program(command)
            assert (reader, done.stdout) == (reader, value)


@pytest.mark.parametrize("value", ["it's", "back\\slash", "${HOME}", "a\nb"])
def test_value_that_dotenv_parsers_disagree_on_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        dotenv("ANTHROPIC_API_KEY", value)
