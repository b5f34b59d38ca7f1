"""`pensieve config`, as it is typed."""

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


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert run(["config", *words]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_the_path_is_printed_and_nothing_made(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "path") == (f"{file}\n", "")
    assert not file.exists()


def test_what_is_set_is_got_and_unset_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "get", "port")[0] == "7777\n"
    assert said(capsys, "set", "port", "8000") == ("", f"port is set in {file}.\n")
    assert said(capsys, "get", "port", "--show-origin")[0] == f"8000  {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    said(capsys, "unset", "port")
    assert said(capsys, "get", "port", "--show-origin")[0] == "7777  default\n"
    assert said(capsys, "get", "kv_bits")[0] == "\n"


def test_a_change_under_a_running_server_is_told_with_when_it_holds(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = under_home(file.parent)
    record = own_record(Address("127.0.0.1", 7777, "tiny", "cpu"))
    with server_lock.acquire(paths), publish(paths, record):
        assert "takes it up with:\n  pensieve restart\n" in said(capsys, "set", "port", "8000")[1]
    assert "restart" not in said(capsys, "unset", "port")[1]


def test_sampling_is_the_models_until_it_is_set(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = said(capsys, "list")[0].splitlines()
    assert sum(row.endswith("(by the model)") for row in rows) == 5
    assert [row.split() for row in rows if "allowed" in row] == [
        ["allowed_hosts", "(off)"],
        ["allowed_origins", "(off)"],
    ]
    said(capsys, "set", "temperature", "0.6")
    assert said(capsys, "get", "temperature", "--show-origin")[0] == f"0.6  {file}\n"


def test_every_setting_is_listed_with_its_origin(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(capsys, "set", "memory_gb", "16")
    monkeypatch.setenv("PENSIEVE_PORT", "9000")
    listed = said(capsys, "list", "--show-origin")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(KEYS)
    rows = {line.split()[0]: line.split(maxsplit=1)[1].split("  ") for line in listed}
    assert (rows["memory_gb"][0], rows["memory_gb"][-1].strip()) == ("16", str(file))
    assert (rows["port"][0], rows["port"][-1].strip()) == ("9000", "environment")
    assert rows["model"][-1].strip() == "default"
    assert max(map(len, said(capsys, "list")[0].splitlines())) < 80


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
    jsonschema.validate(json.loads(said(capsys, "list", "--json")[0]), schema)


def test_a_key_is_piped_in_and_never_shown_unasked(tmp_path: Path) -> None:
    def config(*words: str, stdin: bytes | None = None, code: int = 0) -> str:
        done = pensieve("config", *words, home=tmp_path, stdin=stdin)
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).decode()

    refused = config("set", "api_key", KEY, code=2)
    assert "openssl" in refused
    said = [refused, config("set", "api_key", stdin=f"{KEY}\n".encode())]
    said += [config("list"), config("list", "--json")]
    assert KEY not in "".join(said)
    assert config("get", "api_key") == f"{KEY}\n"


def test_a_key_is_asked_for_at_a_terminal_and_not_shown_as_it_is_typed(tmp_path: Path) -> None:
    terminal = at_terminal("config", "set", "api_key", home=tmp_path)
    terminal.expect("api_key: ")
    terminal.sendline(KEY)
    terminal.expect(pexpect.EOF)
    assert "api_key is set in" in terminal.before
    assert KEY not in terminal.before
    assert pensieve("config", "get", "api_key", home=tmp_path).stdout == f"{KEY}\n".encode()


def test_a_variable_that_hides_what_was_set_is_told(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSIEVE_PORT", "9000")
    assert "PENSIEVE_PORT is set and comes before" in said(capsys, "set", "port", "8000")[1]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["set", "prot", "1"], 78, 'Did you mean "port"?'),
        (["get", "mdoel"], 78, 'Did you mean "model"?'),
        (["set", "port", "http"], 78, "a number from 1 to 65535"),
        (["set", "port"], 2, "given no value"),
        (["set"], 2, "NAME"),
        (["sett", "port", "1"], 2, "sett"),
    ],
)
def test_what_cannot_be_is_told_and_changes_nothing(
    words: list[str], code: int, told: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in said(capsys, *words, code=code)[1]
    assert not file.exists()


@pytest.mark.parametrize("content", [content for content, _ in BROKEN[::5]])
def test_a_broken_file_stops_what_needs_it_and_nothing_else(
    content: bytes, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(content)
    for words in (
        ["start"],
        ["env"],
        ["config", "list"],
        ["config", "set", "port", "1"],
        ["restart"],
    ):
        assert run(words) == 78
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{file}" in err
        assert "Traceback" not in err
    assert file.read_bytes() == content
    assert run(["status"]) == 3
    assert run(["stop"]) == 0
    assert run(["logs"]) == 0
    said(capsys, "reset")
    assert said(capsys, "get", "port")[0] == "7777\n"
    assert file.with_name("config.toml.broken").read_bytes() == content


def test_the_file_reaches_what_is_started_and_a_variable_comes_before_it(tmp_path: Path) -> None:
    home = tmp_path / "o'brien ü"
    home.mkdir()
    assert pensieve("config", "set", "model", "größe", home=home).returncode == 0
    assert b"ANTHROPIC_MODEL='gr" in pensieve("env", "--shell", "sh", home=home).stdout
    by_variable = pensieve("env", "--shell", "sh", home=home, PENSIEVE_MODEL="other")
    assert b"ANTHROPIC_MODEL=other\n" in by_variable.stdout
