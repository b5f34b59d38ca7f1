"""Private files stay private, whatever the umask and whatever was planted at their paths."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve import private_files
from pensieve.atomic_files import TEMPORARY, write_atomically
from pensieve.errors import NotWritableError
from pensieve.models.folder.snapshot import check_owner, locked
from pensieve.paths import under_home
from pensieve.private_files import NotOursError, claim, make_folder, open_private, read_private
from pensieve.server.database import Database
from pensieve.server.files.store import FileStore
from pensieve.settings import config_file

WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
STRANGER = 12345


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    file = tmp_path / "precious"
    file.write_text("kept")
    return file


def modes_of(root: Path) -> set[tuple[str, int]]:
    """Return the types and modes of `root` and everything in it."""
    paths = [root, *root.rglob("*")]
    return {
        ("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode)) for path in paths
    }


PRIVATE = {("folder", 0o700), ("file", 0o600)}


@pytest.mark.usefixtures("open_umask")
def test_stored_files_are_private_under_an_open_umask(tmp_path: Path) -> None:
    paths = under_home(tmp_path / "home")
    config_file.write(paths.config_file, "port", 7777)
    FileStore(paths.files).add(b"text", "a.txt", "text/plain")
    batches = Database(paths.batches, "CREATE TABLE batches (id TEXT);")
    with batches.write() as connection:
        connection.execute("INSERT INTO batches VALUES ('a')")
    with locked(paths.models / "some--model"):
        (paths.models / "some--model").mkdir()
        (paths.models / "some--model" / "tokenizer.json").write_text("{}")
        write_atomically(paths.models / "some--model" / "pensieve.json", b"{}", mode=0o666)
    assert modes_of(tmp_path / "home") == PRIVATE
    assert {path.suffix for path in paths.batches.iterdir()} == {"", ".db", ".db-wal", ".db-shm"}


@pytest.mark.usefixtures("open_umask")
def test_make_missing_does_not_change_existing_folders(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    make_folder(tmp_path / "theirs" / "a" / "b")
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o755
    assert modes_of(tmp_path / "theirs" / "a") == {("folder", 0o700)}


def test_make_folder_makes_an_open_folder_private(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(0o777)
    make_folder(tmp_path / "ours")
    assert modes_of(tmp_path / "ours") == {("folder", 0o700)}


def test_make_folder_refuses_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(NotOursError, match="symbolic link"):
        make_folder(tmp_path / "link")
    make_folder(tmp_path / "link", may_be_link=True)


@needs_root
def test_another_users_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "models"
    link.symlink_to(tmp_path / "there")
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(NotOursError, match="another user"):
        make_folder(link, may_be_link=True)
    with pytest.raises(NotWritableError, match="another user") as refusal:
        check_owner(link)
    assert refusal.value.exit_code == 73
    with pytest.raises(NotWritableError, match="another user"), locked(link / "some--model"):
        pass


@needs_root
def test_a_link_to_another_users_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    os.chown(tmp_path / "there", STRANGER, STRANGER)
    (tmp_path / "models").symlink_to(tmp_path / "there")
    with pytest.raises(NotOursError, match="another user"):
        claim(tmp_path / "models")


def test_claim_makes_a_writable_folder_private(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models").chmod(0o777)
    check_owner(tmp_path / "models")
    assert modes_of(tmp_path / "models") == {("folder", 0o700)}
    check_owner(tmp_path / "not there")


def test_open_private_refuses_a_link(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for name in ("link", "dangling"):
        with pytest.raises(NotOursError, match="symbolic link"):
            open_private(tmp_path / name, WRITE)
    with pytest.raises(NotOursError, match="symbolic link"):
        read_private(tmp_path / "link")
    assert precious.read_text() == "kept"
    assert not (tmp_path / "new").exists()


@needs_root
def test_open_private_refuses_another_users_file(precious: Path) -> None:
    os.chown(precious, STRANGER, STRANGER)
    with pytest.raises(NotOursError, match="another user"):
        open_private(precious, WRITE)


def test_open_private_refuses_a_pipe_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        os.close(open_private(tmp_path / "pipe", os.O_RDONLY))
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        os.close(open_private(tmp_path / "pipe", os.O_WRONLY))


def test_open_private_makes_an_open_file_private(precious: Path) -> None:
    precious.chmod(0o666)
    assert read_private(precious, 3) == b"kep"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


def test_refused_files_leak_no_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(OSError):  # noqa: PT011 -- which one is another test's
        open_private(tmp_path / "pipe", os.O_RDONLY)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_writes_do_not_go_through_a_planted_link(tmp_path: Path, precious: Path) -> None:
    report = tmp_path / "report.tar.gz"
    (tmp_path / (report.name + TEMPORARY)).symlink_to(precious)
    report.symlink_to(precious)
    write_atomically(report, b"secret")
    assert precious.read_text() == "kept"
    assert not report.is_symlink()
    assert report.read_bytes() == b"secret"


def test_private_umask_restores_the_umask() -> None:
    before = os.umask(0o022)
    try:
        with private_files.private_umask():
            assert os.umask(0o077) == 0o077
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
