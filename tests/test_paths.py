"""File locations by system and environment."""

from pathlib import Path

from pensieve import paths

HOME = Path("/Users/o'brien ü")


def test_pensieve_home_contains_all_paths() -> None:
    there = paths.under_home(Path("/srv/p"))
    assert there.lock_file == Path("/srv/p/state/server.lock")
    assert there.server_file == Path("/srv/p/state/server.json")
    assert there.server_log == Path("/srv/p/logs/server.log")
    assert there.models == Path("/srv/p/models")
    assert there.config_file == Path("/srv/p/config.toml")


def test_macos_paths_are_under_library() -> None:
    there = paths.macos(HOME)
    assert there.state == HOME / "Library/Application Support/pensieve"
    assert there.models == HOME / "Library/Caches/pensieve/models"
    assert there.logs == HOME / "Library/Logs/pensieve"
    assert there.config_file == HOME / "Library/Application Support/pensieve/config.toml"


def test_other_systems_use_xdg_folders() -> None:
    there = paths.xdg(HOME)
    assert there.state == HOME / ".local/state/pensieve"
    assert there.models == HOME / ".cache/pensieve/models"
    assert there.config_file == HOME / ".config/pensieve/config.toml"
    moved = paths.xdg(HOME, state=Path("/s"), cache=Path("/c"), config=Path("/e"))
    assert moved.config_file == Path("/e/pensieve/config.toml")
    assert (moved.state, moved.logs) == (Path("/s/pensieve"), Path("/s/pensieve/logs"))
    assert moved.models == Path("/c/pensieve/models")
