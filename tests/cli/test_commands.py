"""What the commands print, on which stream, and with which exit code."""

import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve import __version__
from pensieve.cli import app
from pensieve.cli.app import build_app, run
from pensieve.cli.claude.environment import variables
from pensieve.cli.client.target import Target
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.paths import Paths, under_home
from tests.cli.fake_server import health, serving
from tests.cli.program import PROGRAM, ROOT, environment, pensieve, shell_program
from tests.e2e.conftest import free_port

HEAVY = {
    "anyio", "httpx", "huggingface_hub", "jinja2", "mlx", "mlx_lm", "numpy", "pydantic", "starlette", "tokenizers",
    "transformers", "uvicorn",
}  # fmt: skip
NASTY_KEY = "it's\"$HOME\\`id`;#!&|<>(){}*?~=%^"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in [name for name in os.environ if name.startswith(("PENSIEVE_", "ANTHROPIC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHELL", "/bin/bash")
    return under_home(tmp_path / "home")


# help and usage


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_shows_examples_before_commands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 0
    said = capsys.readouterr().out
    assert said.index("pensieve start") < said.index("Commands:")
    assert all(f"  {command} " in said for command in app.COMMANDS)


@pytest.mark.parametrize("command", app.COMMANDS)
def test_each_command_explains_itself_within_80_columns(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert run(["help", command]) == 0
    assert capsys.readouterr().out == said
    assert f"Usage: pensieve {command}" in said
    assert "For example:\n  " in said
    assert max(map(len, said.splitlines())) < 80


def commands_and_theirs() -> list[list[str]]:
    """Every command's words, `config set` and its like among them."""
    parser = build_app()
    below = [[name, other] for name in app.COMMANDS for other in parser[name] if other[0] != "-"]
    return [[name] for name in app.COMMANDS] + below


@pytest.mark.parametrize("command", commands_and_theirs(), ids=" ".join)
def test_each_option_is_explained(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run([*command, "--help"])
    said = capsys.readouterr().out
    assert "For example:\n  " in said
    _, apps, _ = build_app().parse_commands(command)
    function = apps[-1].default_command
    for parameter in inspect.signature(function).parameters.values() if function else ():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            name = f"--{parameter.name.strip('_').replace('_', '-')}"
            assert re.search(rf"^  {name}\b.* {{2}}\S", said, re.MULTILINE), name


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"pensieve {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strat"], 'Did you mean "start"'),
        (["start", "--prot", "1"], "Did you mean --port"),
        (["start", "--port", "http"], "--port"),
        (["start", "--port", "65536"], "--port"),
        (["start", "--device", "tpu"], "--device"),
        (["env", "--shell", "tcsh"], "--shell"),
        (["chat", "hi", "--max-tokens", "0"], "--max-tokens"),
        (["chat", "hi", "--temperature", "2"], "--temperature"),
        (["stop", "now"], "now"),
    ],
)
def test_a_wrong_command_line_is_told_what_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("start --model smollm2-135m --device cpu", 73),
        ("start --model smollm2-135m --device cpu --no-wait", 73),
        ("start --model smollm2-135m --device cpu --foreground", 73),
        ("pull smollm2-135m", 73),
        ("use smollm2-135m", 73),
        ("config set port 1", 73),
        *(
            (words, 0)
            for words in ("env", "ls", "logs", "stop", "cache", "uninstall", "plan --ram 8")
        ),
        ("status", 3),
    ],
)
def test_a_home_that_cannot_be_is_told_by_what_needs_it(
    words: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "pensieve").touch()
    done = pensieve(*words.split(), home=tmp_path, PENSIEVE_PORT=str(free_port()))
    assert done.returncode == code, done.stderr
    assert b"fault of its own" not in done.stderr
    assert code != 73 or str(tmp_path / "pensieve").encode() in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_log_of_another_user_is_told(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    paths.logs.mkdir(parents=True)
    paths.server_log.touch(mode=0o000)
    assert run(["logs"]) == 1
    assert "another user" in capsys.readouterr().err


@pytest.mark.parametrize(("alias", "name"), app.ALIASES.items())
def test_what_other_programs_call_a_command_does_the_same(
    alias: str, name: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{alias} is the same as {name}" in app.root_help()
    done = [
        (run([word, *options]), capsys.readouterr())
        for options in ([], ["--json"], ["-h"])
        for word in (alias, name)
    ]
    assert done[0::2] == done[1::2]
    assert json.loads(done[2][1].out)


def test_a_mistyped_alias_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pss"]) == 2
    assert 'Did you mean "ps"' in capsys.readouterr().err


PROBE = (
    "import sys; from pensieve.cli.app import run; run(sys.argv[1:]); "
    "print(*sys.modules, file=sys.stderr)"
)


def loaded_by(words: str, home: Path) -> set[str]:
    """The packages that are loaded once the command has run."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words.split()],
        capture_output=True,
        check=True,
        env=environment(home),
        text=True,
    )
    loaded = {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}
    assert "pensieve" in loaded
    return loaded


@pytest.mark.parametrize("words", ["--help", "--version", "help exit-codes", "env"])
def test_what_a_shell_waits_for_at_its_start_loads_not_even_a_parser(
    words: str, tmp_path: Path
) -> None:
    assert loaded_by(words, tmp_path) & (HEAVY | {"cyclopts", "rich"}) == set()


@pytest.mark.parametrize("words", ["start --help", "help chat", "env --shell zsh"])
def test_help_loads_nothing_heavy(words: str, tmp_path: Path) -> None:
    assert loaded_by(words, tmp_path) & HEAVY == set()


@pytest.mark.parametrize("words", ["status", "stop", "stop --force"])
def test_light_commands_load_nothing_heavy(words: str, tmp_path: Path) -> None:
    assert loaded_by(words, tmp_path) & (HEAVY | {"rich"}) == set()


@pytest.mark.parametrize("command", app.COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"]) == 0
    assert app.COMMANDS[command] in capsys.readouterr().out


# env


def test_env_prints_exports_and_comments_and_nothing_else(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "--shell", "bash"]) == 0
    out, err = capsys.readouterr()
    for line in out.splitlines():
        assert re.fullmatch(r"export [A-Z_]+=\S+|#.*", line)
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:7777\n" in out
    assert "export ANTHROPIC_API_KEY=pensieve-local-key\n" in out
    assert "pensieve start" in err


def target_of(context_tokens: int) -> Target:
    return Target("http://127.0.0.1:7777", "k", "tiny", True, context_tokens)


def test_env_names_address_key_and_model_as_all_clients_read_them() -> None:
    told = variables(target_of(131_072))
    assert told["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:7777"
    assert {name for name, value in told.items() if value == "k"} == {
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
    }
    tiers = ("OPUS", "SONNET", "HAIKU", "FABLE")
    assert {name for name, value in told.items() if value == "tiny"} == {
        "ANTHROPIC_MODEL",
        *(f"ANTHROPIC_DEFAULT_{tier}_MODEL" for tier in tiers),
        "ANTHROPIC_SMALL_FAST_MODEL",
        "CLAUDE_CODE_SUBAGENT_MODEL",
    }


@pytest.mark.parametrize(
    ("context_tokens", "output_tokens", "compacts"),
    [(131_072, 8192, True), (32_768, 4096, True), (16_384, 2048, False), (8192, 1024, False)],
)
def test_claude_code_is_told_a_window_in_which_its_compaction_has_room(
    context_tokens: int, output_tokens: int, compacts: bool
) -> None:
    told = variables(target_of(context_tokens))
    assert told["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == str(context_tokens)
    assert told["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == str(output_tokens)
    assert told["DISABLE_AUTO_COMPACT"] == ("0" if compacts else "1")


def test_lite_is_a_value_and_not_another_name() -> None:
    lite, full = variables(target_of(8192), is_lite=True), variables(target_of(8192))
    assert list(lite) == list(full)
    assert {name for name in lite if lite[name] != full[name]} == {"CLAUDE_CODE_SIMPLE"}


def test_env_follows_the_running_server_before_the_settings(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSIEVE_PORT", "9000")
    with (
        serving() as server,
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))),
    ):
        assert run(["env", "--check"]) == 0
        out, err = capsys.readouterr()
    assert f"export ANTHROPIC_BASE_URL={server.url}\n" in out
    assert "export ANTHROPIC_MODEL=tiny\n" in out
    assert "export CLAUDE_CODE_MAX_CONTEXT_TOKENS=8192\n" in out
    assert err == ""
    run(["env"])
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:9000\n" in capsys.readouterr().out


def test_a_server_that_does_not_answer_does_not_pass_for_one(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", port, "tiny", "cpu"))),
    ):
        assert run(["env", "--check"]) == 69
        out, err = capsys.readouterr()
        assert run(["env"]) == 0
    assert out == ""
    assert "pensieve start" in err


def test_env_as_json_and_as_a_dotenv_file_says_the_same(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["env", "--json"])
    told = json.loads(capsys.readouterr().out)
    run(["env", "--dotenv"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.partition("=")[0]: line.partition("=")[2].strip("'") for line in lines} == told


@pytest.mark.parametrize("words", ["--json --dotenv", "--json --shell sh", "--unset --json"])
def test_env_takes_one_form_at_a_time(
    words: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", *words.split()]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("shell", "first"),
    [
        ("/bin/zsh", "export "),
        ("/usr/bin/fish", "set -gx "),
        ("/opt/bin/nu", "{"),
        ("/bin/pwsh", "$env:"),
    ],
)
def test_env_speaks_the_users_shell(
    shell: str,
    first: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SHELL", shell)
    run(["env"])
    assert capsys.readouterr().out.startswith(first)


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        ("bash", 'eval "$({})"; env -0'),
        ("zsh", 'eval "$({})"; env -0'),
        ("dash", 'eval "$({})"; env -0'),
        ("fish", "{} | source; env -0"),
        ("nu", "{} | from nuon | load-env; env -0"),
    ],
)
def test_a_shell_that_reads_env_has_the_very_key(shell: str, script: str, tmp_path: Path) -> None:
    command = " ".join([*PROGRAM, "env"])
    done = subprocess.run(
        [shell_program(shell), "-c", script.format(command)],
        capture_output=True,
        check=True,
        env=environment(tmp_path, SHELL=f"/bin/{shell}", PENSIEVE_API_KEY=NASTY_KEY),
    )
    got = dict(pair.split(b"=", 1) for pair in done.stdout.split(b"\0") if pair)
    assert got[b"ANTHROPIC_API_KEY"].decode() == NASTY_KEY
    assert got[b"ANTHROPIC_AUTH_TOKEN"].decode() == NASTY_KEY


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        ("bash", 'eval "$({0} --lite)"; eval "$({0} --unset)"; env -0'),
        ("zsh", 'eval "$({0} --lite)"; eval "$({0} --unset)"; env -0'),
        ("dash", 'eval "$({0} --lite)"; eval "$({0} --unset)"; env -0'),
        ("fish", "{0} --lite | source; {0} --unset | source; {0} --unset | source; env -0"),
        (
            "nu",
            "{0} --lite | from nuon | load-env; {0} --unset | from nuon | do --env {{ let them = $in;"
            " hide-env --ignore-errors ...$them.hide; load-env $them.load}}; env -0",
        ),
    ],
)
def test_unset_takes_away_what_env_gave_and_nothing_else(
    shell: str, script: str, tmp_path: Path
) -> None:
    own = {"ANTHROPIC_BETAS": "mine", "CLAUDE_CODE_X": "1", "HTTP_PROXY": "http://proxy:3128"}
    own |= {"NO_PROXY": "corp.example"}
    done = subprocess.run(
        [shell_program(shell), "-c", script.format(" ".join([*PROGRAM, "env"]))],
        capture_output=True,
        check=True,
        env=environment(tmp_path, SHELL=f"/bin/{shell}", **own),
    )
    left = dict(pair.decode().split("=", 1) for pair in done.stdout.split(b"\0") if pair)
    assert left.keys() & variables(target_of(8192)).keys() == set()
    assert own.items() <= left.items()
    assert "no_proxy" not in left


# status and stop


def test_without_a_server_status_says_so_and_stop_has_nothing_to_do(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status"]) == 3
    assert run(["stop"]) == 0
    assert run(["stop", "--force"]) == 0
    out, err = capsys.readouterr()
    assert out == "pensieve is not running.\n" * 3
    assert err == "Start it:\n  pensieve start\n"
    assert not paths.state.exists()


def test_status_shows_the_running_server(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        serving() as server,
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))),
    ):
        assert run(["status"]) == 0
        out = capsys.readouterr().out
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    assert rows["status"].strip() == "ready"
    assert rows["address"].strip() == server.url
    assert rows["model"].strip() == "tiny (someone/tiny)"
    assert rows["context"].strip() == "8,192 tokens"
    assert rows["pid"].strip() == str(os.getpid())


def test_a_server_that_is_not_ready_is_unhealthy_with_its_reason(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server, server_lock.acquire(paths):
        assert run(["status"]) == 4
        assert capsys.readouterr().out == "pensieve is starting.\n"
        server.healths = lambda: health("failed", "weights are cursed")
        with publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))):
            assert run(["status"]) == 4
    assert "failed (weights are cursed)" in capsys.readouterr().out


def test_a_server_that_does_not_answer_is_unhealthy(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", port, "tiny", "cpu"))),
    ):
        assert run(["status"]) == 4
    assert "unreachable" in capsys.readouterr().out


# errors


def test_a_wrong_setting_is_told_without_a_traceback(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSIEVE_PORT", "http")
    assert run(["env"]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert "PENSIEVE_PORT" in err
    assert "Traceback" not in err
    monkeypatch.setenv("PENSIEVE_DEBUG", "1")
    assert run(["env"]) == 78
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
        cwd=ROOT,
    ) as child:
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        said = child.stderr.read()
    assert child.returncode == 128 + signal.SIGPIPE
    assert said == b""


def test_nothing_is_coloured_in_a_pipe(tmp_path: Path) -> None:
    done = pensieve("env", home=tmp_path, TERM="xterm-256color")
    assert b"\x1b" not in done.stdout + done.stderr
    forced = pensieve("env", home=tmp_path, TERM="xterm", FORCE_COLOR="1")
    assert b"\x1b" in forced.stderr
    assert b"\x1b" not in forced.stdout


def test_the_c_locale_breaks_nothing(tmp_path: Path) -> None:
    home = tmp_path / "o'brien ü"
    home.mkdir()
    for variables_ in (
        {"LC_ALL": "C"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    ):
        done = pensieve("env", home=home, PENSIEVE_MODEL="größe", **variables_)
        assert done.returncode == 0
        assert b"Traceback" not in done.stderr
