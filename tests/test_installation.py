"""The program's folder, service and log with folders as Homebrew creates them; the commands that
install, update and remove it, by where it came from.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.daemon.server_record import Address, logs_of, own_record
from pensieve.installation import (
    Installation,
    Keg,
    is_installed,
    keg_of,
    pip_installation,
    service_file,
    tap_of,
)
from pensieve.paths import under_home

INTERPRETER = Path("/my venv/bin/python")
PYTHON = "'/my venv/bin/python'"
KEG = Keg(Path("/opt/homebrew"), "pensieve")


def installed(tmp_path: Path, origin: object = None) -> Installation:
    """`origin`: what pip's direct_url.json says."""
    return pip_installation(
        INTERPRETER, tmp_path / "site-packages", json.dumps(origin) if origin else ""
    )


def test_a_clone_that_the_program_runs_from_is_installed_again_from_itself(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    stale = json.dumps({"url": "file:///elsewhere", "dir_info": {"editable": True}})
    clone = pip_installation(INTERPRETER, tmp_path, stale)
    install = f"{PYTHON} -m pip install --editable"
    assert clone.install_command("cuda") == f"{install} '{tmp_path}[cuda]'"
    assert clone.update_command() == f"git -C {tmp_path} pull && {install} {tmp_path}"
    assert clone.removal_command() == f"{PYTHON} -m pip uninstall pensieve-llm"


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        ({"url": "file:///my%20clone", "dir_info": {}}, "'/my clone[cpu]'"),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "'pensieve-llm[cpu] @ git+https://host/x.git'",
        ),
        (
            {"url": "file:///x/pensieve.whl", "archive_info": {}},
            "'pensieve-llm[cpu] @ file:///x/pensieve.whl'",
        ),
        (None, "'pensieve-llm[cpu]'"),
        ({"uri": 1}, "'pensieve-llm[cpu]'"),
        ([], "'pensieve-llm[cpu]'"),
    ],
)
def test_what_pip_installed_is_installed_again_from_the_same_place(
    tmp_path: Path, origin: object, requirement: str
) -> None:
    installation = installed(tmp_path, origin)
    assert installation.requirement("cpu") == requirement
    assert installation.install_command("cpu") == f"{PYTHON} -m pip install {requirement}"


def test_a_copy_is_updated_from_its_clone_and_from_an_index(tmp_path: Path) -> None:
    copied = installed(tmp_path, {"url": "file:///clone", "dir_info": {}})
    assert copied.update_command() == f"git -C /clone pull && {PYTHON} -m pip install /clone"
    assert installed(tmp_path).update_command() == f"{PYTHON} -m pip install --upgrade pensieve-llm"


@pytest.mark.parametrize(
    ("is_from_local_tap", "update"),
    [(False, "brew upgrade pensieve"), (True, "git pull && make brew    # in your clone")],
)
def test_homebrew_updates_what_is_not_from_a_local_tap(
    update: str, *, is_from_local_tap: bool
) -> None:
    installation = Installation(INTERPRETER, KEG, is_from_local_tap=is_from_local_tap)
    assert installation.update_command().startswith(update)
    assert installation.install_command("cpu") == "brew reinstall pensieve"
    assert installation.removal_command() == "brew uninstall pensieve"


@pytest.mark.parametrize(
    ("receipt", "tap"),
    [
        ('{"source": {"tap": "local/pensieve"}}', "local/pensieve"),
        ('{"source": null}', None),
        ("[", None),
        (None, None),
    ],
)
def test_a_tap_is_read_from_homebrews_receipt(
    tmp_path: Path, receipt: str | None, tap: str | None
) -> None:
    if receipt:
        (tmp_path / "INSTALL_RECEIPT.json").write_text(receipt)
    assert tap_of(tmp_path / "libexec") == tap


# Homebrew's folders


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
