"""Output, streams and exit codes of the commands."""

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
from tests.support.ports import free_port
from tests.support.programs import run_program

HEAVY = {
    "anyio", "httpx", "huggingface_hub", "jinja2", "mlx", "mlx_lm", "numpy", "pydantic",
    "starlette", "tokenizers",
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


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_help_shows_examples_before_commands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.index("pensieve start") < printed.index("Commands:")
    assert all(f"  {command} " in printed for command in app.COMMANDS)


@pytest.mark.parametrize("command", app.COMMANDS)
def test_each_command_help_fits_80_columns(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert run(["help", command]) == 0
    assert capsys.readouterr().out == printed
    assert f"Usage: pensieve {command}" in printed
    assert "For example:\n  " in printed
    assert max(map(len, printed.splitlines())) < 80


def commands_and_theirs() -> list[list[str]]:
    """Return every command, including subcommands such as `config set`."""
    parser = build_app()
    below = [[name, other] for name in app.COMMANDS for other in parser[name] if other[0] != "-"]
    return [[name] for name in app.COMMANDS] + below


@pytest.mark.parametrize("command", commands_and_theirs(), ids=" ".join)
def test_each_option_is_explained(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run([*command, "--help"])
    printed = capsys.readouterr().out
    assert "For example:\n  " in printed
    _, apps, _ = build_app().parse_commands(command)
    function = apps[-1].default_command
    for parameter in inspect.signature(function).parameters.values() if function else ():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            name = f"--{parameter.name.strip('_').replace('_', '-')}"
            assert re.search(rf"^  {name}\b.* {{2}}\S", printed, re.MULTILINE), name


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"pensieve {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["strat"], 'Did you mean "start"'),
        (["start", "--prot", "1"], "Did you mean --port"),
        (["start", "--port", "http"], "--port"),
        (["start", "--port", "65536"], "--port"),
        (["start", "--device", "tpu"], "--device"),
        (["env", "--shell", "tcsh"], "--shell"),
        (["chat", "hi", "--max-tokens", "0"], "--max-tokens"),
        (["chat", "hi", "--temperature", "2.5"], "--temperature"),
        (["stop", "now"], "now"),
    ],
)
def test_wrong_command_line_names_the_error(
    arguments: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert printed in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("start --model smollm2-135m --device cpu", 73),
        ("start --model smollm2-135m --device cpu --no-wait", 73),
        ("start --model smollm2-135m --device cpu --foreground", 73),
        ("pull smollm2-135m", 73),
        ("use smollm2-135m", 73),
        ("config set port 1", 73),
        *(
            (arguments, 0)
            for arguments in ("env", "ls", "logs", "stop", "cache", "uninstall", "plan --ram 8")
        ),
        ("status", 3),
    ],
)
def test_unusable_home_fails_only_commands_that_need_it(
    arguments: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "pensieve").touch()
    done = pensieve(*arguments.split(), home=tmp_path, PENSIEVE_PORT=str(free_port()))
    assert done.returncode == code, done.stderr
    assert b"Internal error" not in done.stderr
    assert code != 73 or str(tmp_path / "pensieve").encode() in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_log_of_another_user_is_reported(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    paths.logs.mkdir(parents=True)
    paths.server_log.touch(mode=0o000)
    assert run(["logs"]) == 1
    assert "another user" in capsys.readouterr().err


@pytest.mark.parametrize(("alias", "name"), app.ALIASES.items())
def test_alias_behaves_like_its_command(
    alias: str, name: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{alias} is the same as {name}" in app.root_help()
    done = [
        (run([argument, *options]), capsys.readouterr())
        for options in ([], ["--json"], ["-h"])
        for argument in (alias, name)
    ]
    assert done[0::2] == done[1::2]
    assert json.loads(done[2][1].out)


def test_mistyped_alias_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pss"]) == 2
    assert 'Did you mean "ps"' in capsys.readouterr().err


PROBE = (
    "import sys; from pensieve.cli.app import run; run(sys.argv[1:]); "
    "print(*sys.modules, file=sys.stderr)"
)


def loaded_by(arguments: str, home: Path) -> set[str]:
    """Return the packages that are loaded after the command has run."""
    done = run_program([sys.executable, "-c", PROBE, *arguments.split()], env=environment(home))
    loaded = {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}
    assert "pensieve" in loaded
    return loaded


@pytest.mark.parametrize("arguments", ["--help", "--version", "help exit-codes", "env"])
def test_env_and_completion_do_not_import_the_parser(arguments: str, tmp_path: Path) -> None:
    assert loaded_by(arguments, tmp_path) & (HEAVY | {"cyclopts", "rich"}) == set()


@pytest.mark.parametrize("arguments", ["start --help", "help chat", "env --shell zsh"])
def test_help_loads_nothing_heavy(arguments: str, tmp_path: Path) -> None:
    assert loaded_by(arguments, tmp_path) & HEAVY == set()


@pytest.mark.parametrize("arguments", ["status", "stop", "stop --force"])
def test_light_commands_load_nothing_heavy(arguments: str, tmp_path: Path) -> None:
    assert loaded_by(arguments, tmp_path) & (HEAVY | {"rich"}) == set()


@pytest.mark.parametrize("command", app.COMMANDS)
def test_command_list_matches_each_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_env_sets_address_key_and_model_for_all_clients() -> None:
    report = variables(target_of(131_072))
    assert report["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:7777"
    assert {name for name, value in report.items() if value == "k"} == {
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
    }
    tiers = ("OPUS", "SONNET", "HAIKU", "FABLE")
    assert {name for name, value in report.items() if value == "tiny"} == {
        "ANTHROPIC_MODEL",
        *(f"ANTHROPIC_DEFAULT_{tier}_MODEL" for tier in tiers),
        "ANTHROPIC_SMALL_FAST_MODEL",
        "CLAUDE_CODE_SUBAGENT_MODEL",
    }


@pytest.mark.parametrize(
    ("context_tokens", "output_tokens", "compacts"),
    [(131_072, 8192, True), (32_768, 4096, True), (16_384, 2048, False), (8192, 1024, False)],
)
def test_claude_code_window_leaves_room_for_compaction(
    context_tokens: int, output_tokens: int, compacts: bool
) -> None:
    report = variables(target_of(context_tokens))
    assert report["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == str(context_tokens)
    assert report["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == str(output_tokens)
    assert report["DISABLE_AUTO_COMPACT"] == ("0" if compacts else "1")


def test_lite_changes_values_and_not_names() -> None:
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


def test_env_check_fails_if_the_server_does_not_answer(
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


def test_env_reports_a_key_that_the_server_refuses(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        serving() as server,
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))),
    ):
        server.key = "another"
        assert run(["env", "--check"]) == 1
        out, err = capsys.readouterr()
        assert (out, "rejects this key" in err, "pensieve restart" in err) == ("", True, True)
        assert run(["env"]) == 0
        out, err = capsys.readouterr()
        assert ("ANTHROPIC_BASE_URL" in out, "rejects this key" in err) == (True, True)


def test_env_json_and_dotenv_hold_the_same_values(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["env", "--json"])
    report = json.loads(capsys.readouterr().out)
    run(["env", "--dotenv"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.partition("=")[0]: line.partition("=")[2].strip("'") for line in lines} == report


@pytest.mark.parametrize("arguments", ["--json --dotenv", "--json --shell sh", "--unset --json"])
def test_env_refuses_two_formats(
    arguments: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", *arguments.split()]) == 2
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
def test_env_uses_the_syntax_of_the_users_shell(
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
def test_shell_that_evaluates_env_has_the_exact_key(
    shell: str, script: str, tmp_path: Path
) -> None:
    command = " ".join([*PROGRAM, "env"])
    done = run_program(
        [shell_program(shell), "-c", script.format(command)],
        env=environment(tmp_path, SHELL=f"/bin/{shell}", PENSIEVE_API_KEY=NASTY_KEY),
    )
    exported = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    assert exported["ANTHROPIC_API_KEY"] == NASTY_KEY
    assert exported["ANTHROPIC_AUTH_TOKEN"] == NASTY_KEY


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        ("bash", 'eval "$({0} --lite)"; eval "$({0} --unset)"; env -0'),
        ("zsh", 'eval "$({0} --lite)"; eval "$({0} --unset)"; env -0'),
        ("dash", 'eval "$({0} --lite)"; eval "$({0} --unset)"; env -0'),
        ("fish", "{0} --lite | source; {0} --unset | source; {0} --unset | source; env -0"),
        (
            "nu",
            "{0} --lite | from nuon | load-env; {0} --unset | from nuon | do --env {{ let them ="
            " $in; hide-env --ignore-errors ...$them.hide; load-env $them.load}}; env -0",
        ),
    ],
)
def test_unset_removes_only_variables_of_env(shell: str, script: str, tmp_path: Path) -> None:
    own = {"ANTHROPIC_BETAS": "mine", "CLAUDE_CODE_X": "1", "HTTP_PROXY": "http://proxy:3128"}
    own |= {"NO_PROXY": "corp.example"}
    done = run_program(
        [shell_program(shell), "-c", script.format(" ".join([*PROGRAM, "env"]))],
        env=environment(tmp_path, SHELL=f"/bin/{shell}", **own),
    )
    left = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    assert left.keys() & variables(target_of(8192)).keys() == set()
    assert own.items() <= left.items()
    assert "no_proxy" not in left


# status and stop


def test_status_and_stop_report_that_no_server_runs(
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


def test_status_of_an_unready_server_shows_the_reason(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server, server_lock.acquire(paths):
        assert run(["status"]) == 4
        assert capsys.readouterr().out == "pensieve is starting.\n"
        server.healths = lambda: health("failed", "weights are cursed")
        with publish(paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))):
            assert run(["status"]) == 4
    assert "failed (weights are cursed)" in capsys.readouterr().out


def test_status_of_an_unresponsive_server_is_unhealthy(
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


def test_invalid_setting_is_reported_without_a_traceback(
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


def test_closed_output_pipe_is_no_error(tmp_path: Path) -> None:
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
        printed = child.stderr.read()
    assert child.returncode == 128 + signal.SIGPIPE
    assert printed == b""


FULL = Path("/dev/full")
is_linux = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def redirected(home: Path, *arguments: str, out: int, err: int) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [*PROGRAM, *arguments],
        stdout=out,
        stderr=err,
        env=environment(home),
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout or b"", done.stderr or b""


@is_linux
@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["start", "--help"],
        ["status"],
        ["doctor"],
        ["config", "list"],
        ["completion", "bash"],
        ["logs"],
    ],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_one_sentence(
    arguments: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "pensieve" / "logs" / "server.log"
    log.parent.mkdir(parents=True)
    log.write_text("a line\n" * 10_000)
    with FULL.open("wb") as full:
        code, _, printed = redirected(tmp_path, *arguments, out=full.fileno(), err=subprocess.PIPE)
    assert code == 73
    *_, last = printed.decode().splitlines()
    assert last == "Error: The output cannot be written: No space left on device."
    assert b"Traceback" not in printed
    assert b"Internal" not in printed


@is_linux
def test_messages_that_cannot_be_written_change_no_result(tmp_path: Path) -> None:
    with FULL.open("wb") as full:
        code, printed, _ = redirected(tmp_path, "env", out=subprocess.PIPE, err=full.fileno())
        assert (code, b"ANTHROPIC_BASE_URL" in printed) == (0, True)
        assert redirected(tmp_path, "nosuch", out=subprocess.PIPE, err=full.fileno())[0] == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_written_to_by_nothing(closed: str, tmp_path: Path) -> None:
    command = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *PROGRAM, "status"],
        capture_output=True,
        env=environment(tmp_path),
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert b"Error" not in done.stdout + done.stderr


def test_output_to_a_pipe_has_no_colour(tmp_path: Path) -> None:
    done = pensieve("env", home=tmp_path, TERM="xterm-256color")
    assert b"\x1b" not in done.stdout + done.stderr
    forced = pensieve("env", home=tmp_path, TERM="xterm", FORCE_COLOR="1")
    assert b"\x1b" in forced.stderr
    assert b"\x1b" not in forced.stdout


def test_c_locale_is_supported(tmp_path: Path) -> None:
    home = tmp_path / "o'brien ü"
    home.mkdir()
    for variables_ in (
        {"LC_ALL": "C"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    ):
        done = pensieve("env", home=home, PENSIEVE_MODEL="größe", **variables_)
        assert done.returncode == 0
        assert b"Traceback" not in done.stderr
