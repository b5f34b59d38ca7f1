"""Homebrew's locations of the program, its service and log, with folders as Homebrew creates
them.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.daemon.server_record import Address, logs_of, own_record
from pensieve.homebrew import Keg, is_installed, keg_of, service_file
from pensieve.paths import under_home


@pytest.mark.parametrize(
    ("prefix", "keg"),
    [
        ("/opt/homebrew/Cellar/pensieve/0.1.0/libexec", Keg(Path("/opt/homebrew"), "pensieve")),
        ("/usr/local/Cellar/pensieve/0.1.0_1/libexec", Keg(Path("/usr/local"), "pensieve")),
        ("/Users/me/pensieve/.venv", None),
        ("/opt/homebrew/Cellar", None),
        ("/Users/me/Cellar/x", None),
    ],
)
def test_a_keg_is_derived_from_its_folder(prefix: str, keg: Keg | None) -> None:
    assert keg_of(Path(prefix)) == keg


def test_the_service_log_is_in_homebrews_var_folder() -> None:
    keg = keg_of(Path("/opt/homebrew/Cellar/pensieve/0.1.0/libexec"))
    assert keg is not None
    assert keg.log == Path("/opt/homebrew/var/log/pensieve.log")


def test_the_users_service_file_precedes_the_machines(tmp_path: Path) -> None:
    agents, daemons = tmp_path / "Library" / "LaunchAgents", tmp_path / "LaunchDaemons"
    assert service_file(tmp_path, daemons) is None
    for folder in (daemons, agents):
        folder.mkdir(parents=True)
        (folder / "homebrew.mxcl.other.plist").touch()
        assert service_file(tmp_path, daemons) != folder / "homebrew.mxcl.pensieve.plist"
        (folder / "homebrew.mxcl.pensieve.plist").touch()
        assert service_file(tmp_path, daemons) == folder / "homebrew.mxcl.pensieve.plist"


def test_a_program_with_removed_keg_is_not_installed(tmp_path: Path) -> None:
    """Like after `brew upgrade`: the new keg exists, `opt` links to it, the old one is removed."""
    cellar, opt = tmp_path / "Cellar" / "pensieve", tmp_path / "opt" / "pensieve"
    python = Path("libexec", "bin", "python3.14")
    package = Path("libexec", "lib", "python3.14", "site-packages", "pensieve", "__init__.py")
    for file in (python, package):
        (cellar / "0.1.0" / file).parent.mkdir(parents=True)
        (cellar / "0.1.0" / file).touch()
    opt.parent.mkdir()
    opt.symlink_to(cellar / "0.1.0")
    old = (cellar / "0.1.0" / python, cellar / "0.1.0" / package)
    assert is_installed(old)
    shutil.copytree(cellar / "0.1.0", cellar / "0.2.0")
    opt.unlink()
    opt.symlink_to(cellar / "0.2.0")
    assert is_installed(old)
    shutil.rmtree(cellar / "0.1.0")
    assert not is_installed(old)
    assert is_installed((opt / python, opt / package))


def test_the_running_program_is_installed() -> None:
    assert is_installed()


# logs


def test_logs_of_both_locations_are_sorted_by_modification(tmp_path: Path) -> None:
    paths, keg = under_home(tmp_path / "home"), Keg(tmp_path / "homebrew", "pensieve")
    assert logs_of(paths, None, keg) == []
    for log in (paths.server_log, keg.log):
        log.parent.mkdir(parents=True)
        log.touch()
    os.utime(paths.server_log, (1, 1))
    assert logs_of(paths, None, keg) == [paths.server_log, keg.log]
    os.utime(keg.log, (0, 0))
    assert logs_of(paths, None, keg) == [keg.log, paths.server_log]
    assert logs_of(paths, None, None) == [paths.server_log]


def test_a_running_servers_own_log_is_the_only_one(tmp_path: Path) -> None:
    paths, keg = under_home(tmp_path / "home"), Keg(tmp_path / "homebrew", "pensieve")
    paths.logs.mkdir(parents=True)
    paths.server_log.touch()
    record = own_record(Address("127.0.0.1", 7777, "tiny", "cpu"))
    in_file = replace(record, log=str(tmp_path / "service.log"))
    assert logs_of(paths, in_file, keg) == [tmp_path / "service.log"]
    assert logs_of(paths, replace(record, log=""), keg) == [paths.server_log]
