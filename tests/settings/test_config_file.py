"""The configuration file: reading, errors with lines, and changes that keep the other content."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.errors import NotWritableError, SettingsError
from pensieve.settings import config_file
from pensieve.settings.resolve import Flags, resolve
from pensieve.settings.spec import KEYS, SettingSpec

BROKEN = [
    (b"port = ", 1),
    (b"port 8000", 1),
    (b"model = 'a'\nport = 'http'", 2),
    (b"model = 'a'\nport = 0", 2),
    (b"port = 65536", 1),
    (b"port = true", 1),
    (b"port = 1.5", 1),
    (b"# a comment\n\nprot = 8000", 3),
    (b"model = 'a'\nmodel = 'b'", 2),
    (b"model = 'unclosed", 1),
    (b'model = """\nunclosed', 2),
    (b"model = 7", 1),
    (b"model = ''", 1),
    (b"device = 'tpu'", 1),
    (b"kv_bits = 5", 1),
    (b"memory_gb = -1", 1),
    (b"memory_gb = 'much'", 1),
    (b"wired = 1", 1),
    (b"wired = yes", 1),
    (b"[server]\nport = 8000", 1),
    (b"model = 'a'\n[[port]]\nx = 1", 2),
    (b"server.port = 8000", 1),
    (b"model = 'a'\n\xff\xfe", 2),
    (b"model = 'a\x00'", 1),
    (b"api_key = 'two words'", 1),
    (b"\x7fELF\x02\x01\x01", 1),
    (b"{}", 1),
    (b"a = " + b"[" * 10_000, 1),
    (b"port = " + b"9" * 5000, 1),
    (b"# first\nport = 7_" + b"9" * 5000, 2),
    (b"port = 2024-99-99", 1),
    (b"temperature = 2.1", 1),
    (b"temperature = nan", 1),
    (b"memory_gb = 1" + b"0" * 400, 1),
    (b"top_p = 0", 1),
    (b"top_k = -1", 1),
    (b"top_k = 2.5", 1),
    (b"min_p = 1.1", 1),
    (b"repetition_penalty = 0", 1),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "o'brien ü" / "config.toml"


def written(file: Path, content: bytes | str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(("content", "line"), BROKEN, ids=[repr(each)[:40] for each, _ in BROKEN])
def test_an_invalid_file_is_refused_with_its_line(content: bytes, line: int, file: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        config_file.read(written(file, content))
    assert refusal.value.exit_code == 78
    assert str(file) in refusal.value.message
    assert f"line {line}" in refusal.value.message
    assert "two words" not in refusal.value.message


def test_an_unknown_key_is_refused_with_a_suggestion(file: Path) -> None:
    with pytest.raises(SettingsError, match=r'"api-key"\. Did you mean "api_key"'):
        config_file.read(written(file, "api-key = 'k'"))


def test_no_file_and_an_empty_one_set_nothing(file: Path) -> None:
    assert config_file.read(file) == {}
    assert config_file.read(written(file, "# nothing yet\n")) == {}
    assert config_file.read(written(file, b"\xef\xbb\xbfport = 1\r\n")) == {"port": 1}


def test_too_large_and_special_files_are_refused(file: Path) -> None:
    with pytest.raises(SettingsError, match="larger"):
        config_file.read(written(file, "#" * (config_file.MAX_BYTES + 1)))
    with pytest.raises(SettingsError, match="is a folder"):
        config_file.read(file.parent)


def test_an_api_key_readable_by_others_is_refused_with_the_fix(file: Path) -> None:
    config_file.write(file, "api_key", "secret")
    assert config_file.read(file) == {"api_key": "secret"}
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="other users can read it") as refusal:
        config_file.read(file)
    assert "chmod 600 " in (refusal.value.hint or "")


def test_a_change_keeps_comments_and_order(file: Path) -> None:
    written(file, "# mine\nport = 8000   # why\n\n  model = 'a'\n# port = 1\nhost = '::1' # here")
    config_file.write(file, "port", 9000)
    config_file.write(file, "wired", value=True)
    config_file.write(file, "memory_gb", 16.5)
    config_file.write(file, "model", None)
    assert (
        file.read_text() == "# mine\nport = 9000   # why\n\n# port = 1\nhost = '::1' # here\n"
        "wired = true\nmemory_gb = 16.5\n"
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 in {0, 0o055}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('model = """\nphi"""  # mine\nport = 1\n', 'model = "other"  # mine\nport = 1\n'),
        ("\"model\" = 'a'\r\nport = 1\r\n", '"model" = "other"\r\nport = 1\r\n'),
    ],
)
def test_a_value_of_any_form_is_changed_in_its_place(before: str, after: str, file: Path) -> None:
    config_file.write(written(file, before), "model", "other")
    assert file.read_bytes() == after.encode()


def test_a_new_folder_is_private(file: Path) -> None:
    config_file.write(file, "port", 9000)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_any_text_round_trips(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("config") / "config.toml"
    config_file.write(file, "host", "::1")
    config_file.write(file, "model", text)
    config_file.write(file, "port", 1)
    assert config_file.read(file) == {"host": "::1", "model": text, "port": 1}


def test_an_invalid_file_is_not_changed(file: Path) -> None:
    with pytest.raises(SettingsError, match="line 1"):
        config_file.write(written(file, "port = x\n"), "model", "other")
    assert file.read_text() == "port = x\n"


def test_an_unwritable_location_raises(tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    with pytest.raises(NotWritableError, match="cannot be written"):
        config_file.write(tmp_path / "in the way" / "config.toml", "port", 1)


def test_back_up_renames_the_file(file: Path) -> None:
    assert config_file.back_up(file) is None
    backup = config_file.back_up(written(file, "port = x"))
    assert backup
    assert backup.read_text() == "port = x"
    assert not file.exists()


def test_flags_precede_variables_files_and_defaults_with_origins(
    tmp_path: Path,
) -> None:
    file = written(
        tmp_path / "config.toml", "host = '::1'\nport = 1\nmodel = 'of-file'\nkv_bits = 8\n"
    )
    environ = {
        "PENSIEVE_HOME": str(tmp_path),
        "PENSIEVE_PORT": "2",
        "PENSIEVE_MODEL": "of-variable",
        "PENSIEVE_WIRED": "yes",
        "PENSIEVE_CACHE_GB": "",
    }
    settings = resolve(Flags(model="of-flag"), environ)
    assert (settings.host, settings.port, settings.model) == ("::1", 2, "of-flag")
    assert (settings.kv_bits, settings.wired, settings.cache_gb) == (8, True, None)
    assert settings.origins == {
        "host": str(file),
        "kv_bits": str(file),
        "port": "environment",
        "wired": "environment",
        "model": "flag",
    }


def test_zero_disk_cache_is_allowed() -> None:
    settings = resolve(Flags(), {"PENSIEVE_CACHE_GB": "0", "PENSIEVE_DAILY_WRITE_GB": "0"})
    assert (settings.cache_gb, settings.daily_write_gb) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MEMORY_GB", "nan"),
        ("MEMORY_GB", "inf"),
        ("MEMORY_GB", "0"),
        ("KV_BITS", "5"),
        ("WIRED", "maybe"),
    ],
)
def test_an_invalid_variable_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"PENSIEVE_{variable}"):
        resolve(environ={"HOME": "/nowhere", f"PENSIEVE_{variable}": value})


def test_every_key_is_a_setting_and_has_its_variable() -> None:
    settings = resolve(environ={"HOME": "/nowhere"})
    for key in KEYS.values():
        assert hasattr(settings, key.name)
        assert key.variable == f"PENSIEVE_{key.name.upper()}"


@pytest.mark.parametrize("key", [key for key in KEYS.values() if not key.is_secret])
def test_a_refused_value_is_reported_with_allowed_values_and_an_example(key: SettingSpec) -> None:
    key.read(key.example, key.name)
    with pytest.raises(SettingsError) as refused:
        key.read("\0" * 100_000, key.name)
    assert f"; it can be {key.expected}" in refused.value.message
    assert key.example in refused.value.message
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("key", [key for key in KEYS.values() if key.kind in {int, float}])
@pytest.mark.parametrize("value", ["-7", "1e400", "-inf", "nan", "9" * 10_000, "0x10", ""])
def test_an_absurd_number_is_refused_by_every_setting(key: SettingSpec, value: str) -> None:
    with pytest.raises(SettingsError, match="it can be "):
        key.read(value, key.name)


def test_a_second_back_up_keeps_the_first(file: Path) -> None:
    backups = [config_file.back_up(written(file, f"port = {port}")) for port in (1, 2)]
    assert [backup and backup.read_text() for backup in backups] == ["port = 1", "port = 2"]


def test_a_folder_instead_of_the_file_is_named_with_its_fix(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(SettingsError, match="is a folder, not a file") as refusal:
        config_file.read(file)
    assert "pensieve config reset" in (refusal.value.hint or "")
    assert config_file.back_up(file)
    assert config_file.read(file) == {}
