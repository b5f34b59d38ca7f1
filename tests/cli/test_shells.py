"""Every shell gives its children the very values that were exported. The shells are real."""

import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.cli.shells import Shell, dotenv, export, shell_of, usage
from pensieve.errors import SettingsError

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
]


@pytest.mark.parametrize(("shell", "command"), COMMANDS, ids=str)
def test_a_shells_child_gets_the_exported_values(
    shell: Shell, command: list[str], tmp_path: Path
) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]} here")
    lines = [export(shell, f"P{n}", value) for n, value in enumerate(VALUES)]
    exports = tmp_path / "exports"
    exports.write_text("\n".join(lines) + "\n# a comment\n", encoding="utf-8")
    reading = "source" if shell == "fish" else "."
    evaluated = f"cat {exports} | source" if shell == "fish" else f'eval "$(cat {exports})"'
    for script in (f"{reading} {exports}", evaluated):
        done = subprocess.run(
            [*command, "-c", f"{script}; env -0"],
            capture_output=True,
            check=True,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin", "HOME": str(tmp_path)},
        )
        got = dict(pair.split(b"=", 1) for pair in done.stdout.split(b"\0") if pair)
        assert {f"P{n}": got[b"P%d" % n].decode() for n in range(len(VALUES))} == {
            f"P{n}": value for n, value in enumerate(VALUES)
        }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "sh"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x1b[0m", "\0"])
def test_a_value_of_more_than_one_line_is_refused(shell: Shell, value: str) -> None:
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        export(shell, "ANTHROPIC_API_KEY", value)


@pytest.mark.parametrize(
    ("path", "shell"),
    [
        ("/bin/bash", "bash"),
        ("/usr/local/bin/zsh", "zsh"),
        ("/opt/homebrew/bin/fish", "fish"),
        ("/bin/dash", "sh"),
        ("", "sh"),
        ("/opt/bash/bin/nu", "sh"),
    ],
)
def test_the_shell_is_known_by_its_name(path: str, shell: Shell) -> None:
    assert shell_of(path) == shell


def test_fish_has_its_own_way_of_reading() -> None:
    assert usage("fish") == "pensieve env | source"
    assert usage("zsh") == 'eval "$(pensieve env)"'


@pytest.mark.parametrize("value", [value for value in VALUES if not set(value) & set("'\\$")])
def test_a_dotenv_file_holds_a_value_for_python_node_and_sh(value: str, tmp_path: Path) -> None:
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
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            assert (reader, done.stdout) == (reader, value)


@pytest.mark.parametrize("value", ["it's", "back\\slash", "${HOME}", "a\nb"])
def test_what_dotenv_readers_read_differently_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="ANTHROPIC_API_KEY"):
        dotenv("ANTHROPIC_API_KEY", value)
