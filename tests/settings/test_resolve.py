"""Precedence of flags, variables and defaults, and refused settings."""

import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pensieve.errors import SettingsError
from pensieve.paths import under_home
from pensieve.settings.resolve import (
    DEFAULT_API_KEY,
    Flags,
    Settings,
    child_environment,
    is_colour_enabled,
    is_debug_enabled,
    is_loopback,
    is_strong,
    require_one_plan,
    require_own_key,
    resolve,
    shell_path,
)
from pensieve.settings.spec import KEYS

HOME = {"HOME": "/home/me"}


def test_without_input_the_defaults_apply() -> None:
    settings = resolve(environ=HOME)
    assert (settings.model, settings.host, settings.port) == ("phi-3-mini", "127.0.0.1", 7777)
    assert settings.device is None
    assert settings.api_key == DEFAULT_API_KEY
    assert not settings.is_debug


def test_flags_precede_variables_and_variables_defaults() -> None:
    environ = {
        "PENSIEVE_HOME": "/srv/p",
        "PENSIEVE_MODEL": "a",
        "PENSIEVE_DEVICE": "cpu",
        "PENSIEVE_HOST": "::1",
        "PENSIEVE_PORT": "8000",
        "PENSIEVE_API_KEY": "k",
        "PENSIEVE_DEBUG": "1",
    }
    by_variable = resolve(environ=environ)
    assert by_variable == Settings(
        paths=by_variable.paths,
        model="a",
        device="cpu",
        host="::1",
        port=8000,
        api_key="k",
        is_debug=True,
    )
    assert by_variable.paths.state == Path("/srv/p/state")
    by_flag = resolve(Flags(model="b", device="gpu", host="localhost", port=9000), environ)
    assert (by_flag.model, by_flag.device, by_flag.host, by_flag.port) == (
        "b",
        "gpu",
        "localhost",
        9000,
    )


def test_a_relative_home_is_made_absolute() -> None:
    assert resolve(environ={"PENSIEVE_HOME": "here"}).paths.state == Path.cwd() / "here/state"


def test_sampling_contains_only_set_values(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("temperature = 1\ntop_k = 20\n", encoding="utf-8")
    environ = {"PENSIEVE_HOME": str(tmp_path), "PENSIEVE_TEMPERATURE": "0.6"}
    settings = resolve(environ=environ)
    assert settings.sampling == {"temperature": 0.6, "top_k": 20}
    assert settings.origins["temperature"] == "environment"
    assert resolve(environ=HOME).sampling == {}


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has its own places")
def test_a_relative_xdg_folder_is_ignored() -> None:
    settings = resolve(environ={**HOME, "XDG_STATE_HOME": "relative", "XDG_CACHE_HOME": "/c"})
    assert settings.paths.state == Path("/home/me/.local/state/pensieve")
    assert settings.paths.models == Path("/c/pensieve/models")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSIEVE_PORT", "0"),
        ("PENSIEVE_PORT", "65536"),
        ("PENSIEVE_PORT", "-1"),
        ("PENSIEVE_PORT", "http"),
        ("PENSIEVE_DEVICE", "tpu"),
        ("PENSIEVE_TEMPERATURE", "warm"),
        ("PENSIEVE_TEMPERATURE", "2.5"),
        ("PENSIEVE_TOP_P", "0"),
        ("PENSIEVE_TOP_K", "0.5"),
        ("PENSIEVE_MIN_P", "nan"),
        ("PENSIEVE_REPETITION_PENALTY", "-1"),
        ("PENSIEVE_REQUIRE_KEY", "never"),
        ("PENSIEVE_API_KEY", "two words"),
        ("PENSIEVE_API_KEY", "line\nend"),
        ("PENSIEVE_API_KEY", "ключ"),
    ],
)
def test_an_invalid_variable_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refusal:
        resolve(environ={**HOME, name: value})
    assert refusal.value.exit_code == 78


def test_a_refused_key_is_not_shown() -> None:
    with pytest.raises(SettingsError) as refusal:
        resolve(environ={**HOME, "PENSIEVE_API_KEY": "hunter2 "})
    assert "hunter2" not in f"{refusal.value.message}{refusal.value.hint}"


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:7777"), ("::1", "http://[::1]:7777")],
)
def test_the_base_url_is_a_valid_url(host: str, url: str) -> None:
    assert resolve(Flags(host=host), HOME).base_url == url


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_the_default_key_is_accepted_on_loopback(host: str) -> None:
    assert is_loopback(host)
    require_own_key(resolve(Flags(host=host), HOME))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.7", "mac.local", "127.0.0.1.evil.com"]
)
@pytest.mark.parametrize("key", ["", "short", DEFAULT_API_KEY, "a" * 40, "1234567890" * 3])
def test_a_weak_key_is_refused_for_other_hosts(host: str, key: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        require_own_key(resolve(Flags(host=host), {**HOME, "PENSIEVE_API_KEY": key}))
    assert refusal.value.exit_code == 78
    assert refusal.value.hint
    assert "PENSIEVE_API_KEY" in refusal.value.hint


def test_requiring_no_key_is_refused_for_other_hosts() -> None:
    environ = {**HOME, "PENSIEVE_API_KEY": secrets.token_hex(16), "PENSIEVE_REQUIRE_KEY": "off"}
    require_own_key(resolve(environ=environ))
    require_own_key(resolve(Flags(host="0.0.0.0", require_key="on"), environ))
    with pytest.raises(SettingsError, match=r"--host 0\.0\.0\.0 lets other machines in") as refusal:
        require_own_key(resolve(Flags(host="0.0.0.0"), environ))
    assert "pensieve start --host 0.0.0.0 --require-key auto" in str(refusal.value.hint)


@pytest.mark.parametrize("make", [secrets.token_urlsafe, secrets.token_hex])
def test_128_random_bits_are_accepted_for_other_hosts(make) -> None:
    for _ in range(200):
        key = make(16)
        require_own_key(resolve(Flags(host="0.0.0.0"), {**HOME, "PENSIEVE_API_KEY": key}))


def test_22_characters_of_a_small_alphabet_are_weak() -> None:
    assert is_strong("aZ3_kP9-xQ7rT2vB8mN4cW")
    assert not is_strong("0123456789abcdef012345")
    assert not is_strong("aZ3_kP9-xQ7rT2vB8mN4c")


@pytest.mark.parametrize(
    ("environ", "is_terminal", "is_enabled"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"CLICOLOR_FORCE": "1"}, False, True),
        ({"CLICOLOR_FORCE": "0", "TERM": "xterm"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colour_follows_the_user_before_the_terminal(
    environ: dict[str, str], is_terminal: bool, is_enabled: bool
) -> None:
    assert is_colour_enabled(is_terminal=is_terminal, environ=environ) is is_enabled


@pytest.mark.parametrize(
    ("value", "is_enabled"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_debug_is_enabled_by_a_variable(value: str, is_enabled: bool) -> None:
    assert is_debug_enabled({"PENSIEVE_DEBUG": value}) is is_enabled


def test_environment_helpers_read_the_environment() -> None:
    assert shell_path({"SHELL": "/bin/zsh"}) == "/bin/zsh"
    assert shell_path({}) == ""
    assert child_environment({"PENSIEVE_X": "1"})["PENSIEVE_X"] == "1"


@pytest.mark.parametrize(
    ("name", "text", "is_accepted"),
    [
        ("allowed_hosts", "host.docker.internal", True),
        ("allowed_hosts", "host.docker.internal, host.orb.internal,192.168.65.254,[fe80::1]", True),
        ("allowed_hosts", "*", False),
        ("allowed_hosts", "*.docker.internal", False),
        ("allowed_hosts", ".internal", False),
        ("allowed_hosts", "host:7777", False),
        ("allowed_hosts", "http://host", False),
        ("allowed_hosts", "a,,b", False),
        ("allowed_hosts", "a b", False),
        ("allowed_origins", "http://localhost:3000,chrome-extension://abcdef", True),
        ("allowed_origins", "https://[::1]:3000", True),
        ("allowed_origins", "vscode-webview://*,tauri://localhost", True),
        ("allowed_origins", "*", False),
        ("allowed_origins", "http://*", False),
        ("allowed_origins", "HTTPS://*", False),
        ("allowed_origins", "vscode-webview://*.x", False),
        ("allowed_origins", "vscode-webview://", False),
        ("allowed_origins", "null", False),
        ("allowed_origins", "http://*.example.com", False),
        ("allowed_origins", "http://localhost:3000/", False),
        ("allowed_origins", "http://user@localhost", False),
        ("allowed_origins", "localhost:3000", False),
    ],
)
def test_allowed_hosts_and_origins_are_exact_names(name: str, text: str, is_accepted: bool) -> None:
    assert KEYS[name].accepts(text) is is_accepted


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"hosts": "mac-b", "workers": 2}, "Workers are engines on this machine"),
        ({"hosts": "mac-b,mac-b", "replicas": True}, "named twice"),
        ({"hosts": "localhost,mac-b"}, "or share one, with a hostfile"),
        ({"hosts": "localhost,mac-b", "hostfile": "f", "workers": 2}, "without replicas"),
        ({"hosts": "localhost,mac-b", "hostfile": "f", "replicas": True}, "without replicas"),
    ],
)
def test_hosts_and_workers_that_do_not_go_together_are_refused(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        require_one_plan(replace(Settings(under_home(Path("/home"))), **values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"workers": 2},
        {"hosts": "mac-b"},
        {"hosts": "localhost,mac-b", "replicas": True, "workers": 2},
        {"hosts": "localhost,mac-b", "hostfile": "f"},
    ],
)
def test_hosts_and_workers_that_go_together_are_accepted(values: dict[str, Any]) -> None:
    require_one_plan(replace(Settings(under_home(Path("/home"))), **values))
