"""`pensieve config`."""

import json
from pathlib import Path

import jsonschema
import pexpect
import pytest

from pensieve.cli.app import run
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.paths import under_home
from pensieve.settings.spec import KEYS
from tests.cli.program import at_terminal, pensieve
from tests.settings.test_config_file import BROKEN

KEY = "0123456789abcdefghijklmnopqrstuv"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in KEYS.values():
        monkeypatch.delenv(key.variable, raising=False)
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path))
    return tmp_path / "config.toml"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert run(["config", *arguments]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_path_is_printed_without_creating_a_file(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, "path") == (f"{file}\n", "")
    assert not file.exists()


def test_set_get_and_unset(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "get", "port")[0] == "7777\n"
    assert printed(capsys, "set", "port", "8000") == ("", f"port is set in {file}.\n")
    assert printed(capsys, "get", "port", "--show-origin")[0] == f"8000  {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    printed(capsys, "unset", "port")
    assert printed(capsys, "get", "port", "--show-origin")[0] == "7777  default\n"
    assert printed(capsys, "get", "kv_bits")[0] == "\n"


def test_change_with_a_running_server_names_the_restart(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = under_home(file.parent)
    record = own_record(Address("127.0.0.1", 7777, "tiny", "cpu"))
    with server_lock.acquire(paths), publish(paths, record):
        assert (
            "Apply it to the running server:\n  pensieve restart\n"
            in printed(capsys, "set", "port", "8000")[1]
        )
    assert "restart" not in printed(capsys, "unset", "port")[1]


@pytest.mark.parametrize(
    ("service", "flags", "command"),
    [
        ("", {"port": 1}, "pensieve restart --port 8000"),
        ("homebrew.mxcl.pensieve", {}, "brew services restart pensieve"),
    ],
)
def test_the_restart_applies_the_change_to_a_flag_and_to_a_service(
    service: str,
    flags: dict[str, str | float],
    command: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = under_home(file.parent)
    record = own_record(Address("127.0.0.1", 1, "tiny", "cpu"), service=service, flags=flags)
    with server_lock.acquire(paths), publish(paths, record):
        assert printed(capsys, "set", "port", "8000")[1].endswith(f"server:\n  {command}\n")


def test_sampling_is_the_models_until_it_is_set(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = printed(capsys, "list")[0].splitlines()
    assert sum(row.endswith("(by the model)") for row in rows) == 5
    assert [row.split() for row in rows if "allowed" in row] == [
        ["allowed_hosts", "(off)"],
        ["allowed_origins", "(off)"],
    ]
    printed(capsys, "set", "temperature", "0.6")
    assert printed(capsys, "get", "temperature", "--show-origin")[0] == f"0.6  {file}\n"


def test_every_setting_is_listed_with_its_origin(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed(capsys, "set", "memory_gb", "16")
    monkeypatch.setenv("PENSIEVE_PORT", "9000")
    listed = printed(capsys, "list", "--show-origin")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(KEYS)
    rows = {line.split()[0]: line.split(maxsplit=1)[1].split("  ") for line in listed}
    assert (rows["memory_gb"][0], rows["memory_gb"][-1].strip()) == ("16", str(file))
    assert (rows["port"][0], rows["port"][-1].strip()) == ("9000", "environment")
    assert rows["model"][-1].strip() == "default"
    assert max(map(len, printed(capsys, "list")[0].splitlines())) < 80


def test_the_list_as_json_has_one_shape(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"type": ["string", "number", "boolean", "null"]}
    row = {
        "type": "object",
        "properties": {"value": value, "origin": {"type": "string"}},
        "required": ["value", "origin"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": dict.fromkeys(KEYS, row),
        "required": list(KEYS),
        "additionalProperties": False,
    }
    jsonschema.validate(json.loads(printed(capsys, "list", "--json")[0]), schema)


def test_key_is_read_from_a_pipe_and_redacted(tmp_path: Path) -> None:
    def config(*arguments: str, stdin: bytes | None = None, code: int = 0) -> str:
        done = pensieve("config", *arguments, home=tmp_path, stdin=stdin)
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).decode()

    refused = config("set", "api_key", KEY, code=2)
    assert "openssl" in refused
    printed = [refused, config("set", "api_key", stdin=f"{KEY}\n".encode())]
    printed += [config("list"), config("list", "--json")]
    assert KEY not in "".join(printed)
    assert config("get", "api_key") == f"{KEY}\n"


def test_key_prompt_on_a_terminal_does_not_echo(tmp_path: Path) -> None:
    terminal = at_terminal("config", "set", "api_key", home=tmp_path)
    terminal.expect("api_key: ")
    terminal.sendline(KEY)
    terminal.expect(pexpect.EOF)
    assert "api_key is set in" in terminal.before
    assert KEY not in terminal.before
    assert pensieve("config", "get", "api_key", home=tmp_path).stdout == f"{KEY}\n".encode()


def test_overriding_variable_is_reported(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSIEVE_PORT", "9000")
    assert "PENSIEVE_PORT is set and overrides" in printed(capsys, "set", "port", "8000")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["set", "prot", "1"], 78, 'Did you mean "port"?'),
        (["get", "mdoel"], 78, 'Did you mean "model"?'),
        (["set", "port", "http"], 78, "a number from 1 to 65535"),
        (["set", "port"], 2, "port needs a value"),
        (["set"], 2, "NAME"),
        (["sett", "port", "1"], 2, "sett"),
    ],
)
def test_invalid_setting_is_refused_and_changes_nothing(
    arguments: list[str], code: int, expected: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in printed(capsys, *arguments, code=code)[1]
    assert not file.exists()


@pytest.mark.parametrize("content", [content for content, _ in BROKEN[::5]])
def test_broken_file_fails_only_commands_that_need_it(
    content: bytes, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(content)
    for arguments in (
        ["start"],
        ["env"],
        ["config", "list"],
        ["config", "set", "port", "1"],
        ["restart"],
    ):
        assert run(arguments) == 78
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{file}" in err
        assert "Traceback" not in err
    assert file.read_bytes() == content
    assert run(["status"]) == 3
    assert run(["stop"]) == 0
    assert run(["logs"]) == 0
    printed(capsys, "reset")
    assert printed(capsys, "get", "port")[0] == "7777\n"
    assert file.with_name("config.toml.broken").read_bytes() == content


def test_file_applies_to_a_started_server_and_a_variable_overrides_it(tmp_path: Path) -> None:
    home = tmp_path / "o'brien ü"
    home.mkdir()
    assert pensieve("config", "set", "model", "größe", home=home).returncode == 0
    assert b"ANTHROPIC_MODEL='gr" in pensieve("env", "--shell", "sh", home=home).stdout
    by_variable = pensieve("env", "--shell", "sh", home=home, PENSIEVE_MODEL="other")
    assert b"ANTHROPIC_MODEL=other\n" in by_variable.stdout
