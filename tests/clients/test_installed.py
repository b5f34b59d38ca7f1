"""Clients that cannot be installed skip their tests without a registry, and fail them otherwise."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients import installed

NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", NOWHERE)
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("install", [installed.langchain_python, installed.openai_source])
@pytest.mark.usefixtures("_no_registry")
def test_python_clients_are_skipped_without_a_registry(install: Callable[[], Path]) -> None:
    with pytest.raises(pytest.skip.Exception, match="no registry is reached"):
        install()


@pytest.mark.skipif(not shutil.which("npm"), reason="no npm here")
@pytest.mark.usefixtures("_no_registry")
def test_node_clients_are_skipped_without_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(pytest.skip.Exception, match="no registry is reached"):
        installed.nushell()


def test_uninstallable_pins_fail_with_pips_message(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("certifi==0.0.0.dev0\n", encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="No matching distribution"):
        installed.langchain_python(pins)
