"""The completion scripts, in real shells."""

import shutil
from pathlib import Path

import pexpect
import pytest

from pensieve.cli import app
from tests.cli.program import environment, pensieve
from tests.cli.test_commands import HEAVY, loaded_by
from tests.support.programs import run_program

CASES = [
    (["st"], {"start", "stop", "status"}),
    (["start", "--po"], {"--port"}),
    (["config", "un"], {"unset"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completions")
    for shell in ("bash", "zsh", "fish"):
        script = pensieve("completion", shell, home=folder)
        assert (script.returncode, script.stderr) == (0, b"")
        (folder / f"_pensieve.{shell}").write_bytes(script.stdout)
    return folder


def said_by(shell: str, program: str, folder: Path) -> set[str]:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    done = run_program([shell, "-c", program], cwd=folder, env=environment(folder))
    assert done.stderr == ""
    return {line.partition("\t")[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize(("arguments", "expected"), CASES)
def test_bash_completes_commands_options_and_values(
    arguments: list[str], expected: set[str], scripts: Path
) -> None:
    quoted = " ".join(f"'{argument}'" for argument in arguments)
    program = (
        f"source ./_pensieve.bash; COMP_WORDS=(pensieve {quoted}); COMP_CWORD={len(arguments)}; "
        'COMP_LINE="pensieve $*"; _pensieve; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert {argument.strip() for argument in said_by("bash", program, scripts)} == expected


@pytest.mark.parametrize(("arguments", "expected"), CASES)
def test_fish_completes_commands_options_and_values(
    arguments: list[str], expected: set[str], scripts: Path
) -> None:
    line = " ".join(["pensieve", *arguments])
    program = f"source ./_pensieve.fish; complete -C '{line}'"
    assert expected <= said_by("fish", program, scripts)


@pytest.mark.parametrize(
    ("way", "typed", "completed"),
    [
        ("from a folder", "pensieve stat", "pensieve status"),
        ("from a folder", "pensieve start --por", "pensieve start --port"),
        ("as it is", "pensieve config uns", "pensieve config unset"),
    ],
)
def test_zsh_completes_commands_and_options(
    way: str, typed: str, completed: str, scripts: Path
) -> None:
    if not shutil.which("zsh"):
        pytest.skip("no zsh here")
    functions = scripts / "functions"
    functions.mkdir(exist_ok=True)
    shutil.copy(scripts / "_pensieve.zsh", functions / "_pensieve")
    assert completes(LOADED[way], typed, completed, scripts)


LOADED = {
    "from a folder": "fpath=($HOME/functions $fpath); autoload -Uz compinit;"
    " compinit -u -d $HOME/dump",
    "as it is": "autoload -Uz compinit; compinit -u -d $HOME/dump; source $HOME/_pensieve.zsh",
}


def completes(loading: str, typed: str, completed: str, home: Path) -> bool:
    """Return whether an interactive zsh completes the typed text to `completed` at Tab."""
    variables = environment(home, TERM="dumb")
    zsh = pexpect.spawn(
        "zsh", ["-f", "-i"], env=variables, encoding="utf-8", timeout=60, echo=False
    )
    try:
        # Split so that the echo of the command does not match the prompt.
        zsh.sendline(f"unsetopt zle; {loading}; setopt zle; PS1='rea''dy> '")
        zsh.expect_exact("ready> ")
        zsh.send(f"{typed}\t")
        zsh.sendline("\x01print -r -- sa''id: \x05")
        zsh.expect(r"said: ([^\r\n]*)")
        return zsh.match[1].strip() == completed
    finally:
        zsh.close(force=True)


def test_the_scripts_know_every_command_and_loading_them_needs_nothing_heavy(scripts: Path) -> None:
    for script in scripts.glob("_pensieve.*"):
        text = script.read_text()
        assert all(command in text for command in app.COMMANDS)
    assert loaded_by("completion zsh", scripts) & {"mlx", "mlx_lm", "starlette", "httpx"} == set()
    assert {"mlx", "starlette"} < HEAVY
