"""Atomic writes and durability."""

import errno
import os
from pathlib import Path

import pytest

from pensieve.atomic_files import (
    MAX_BROKEN,
    TEMPORARY,
    UNSUPPORTED,
    exclude_from_backups,
    set_aside,
    set_aside_names,
    sync,
    sync_path,
    write_atomically,
)


class Drive:
    """Counts requests to flush its cache, and can refuse them."""

    def __init__(self, refusal: int | None = None) -> None:
        self.descriptors: list[int] = []
        self._refusal = refusal

    def __call__(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        if self._refusal is not None:
            raise OSError(self._refusal, os.strerror(self._refusal))


# fsync(2) fails on it, which shows whether it was called.
NOT_OPEN = 10**6


def test_full_sync_replaces_fsync_if_supported() -> None:
    drive = Drive()
    sync(NOT_OPEN, drive)
    assert drive.descriptors == [NOT_OPEN]


@pytest.mark.parametrize("refusal", sorted(UNSUPPORTED))
def test_unsupported_full_sync_falls_back_to_fsync(refusal: int, tmp_path: Path) -> None:
    drive = Drive(refusal)
    with (tmp_path / "file").open("wb") as file:
        sync(file.fileno(), drive)
        assert drive.descriptors == [file.fileno()]
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(NOT_OPEN, drive)


def test_failing_full_sync_raises() -> None:
    with pytest.raises(OSError, match="Input/output"):
        sync(1, Drive(errno.EIO))


def test_sync_path_accepts_files_and_folders(tmp_path: Path) -> None:
    sync_path(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    sync_path(tmp_path / "file")


@pytest.mark.parametrize("is_durable", [True, False])
def test_write_accepts_content_in_pieces(is_durable: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert write_atomically(file, [b"one", memoryview(b"two")], is_durable=is_durable) == 6
    assert file.read_bytes() == b"onetwo"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("is_durable", [True, False])
def test_failed_write_keeps_the_old_content(is_durable: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")

    def pieces():
        yield b"half"
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(file, pieces(), is_durable=is_durable)
    assert file.read_bytes() == b"before"
    assert not (tmp_path / f"file{TEMPORARY}").exists()


# backups

# A binary property list of the string "com.apple.backupd", byte by byte.
EXCLUDED = bytes.fromhex(
    "62706c6973743030 5f1011 636f6d2e6170706c652e6261636b757064 08"
    "0000000000000101 0000000000000001 0000000000000000 000000000000001c"
)


def test_a_folder_is_excluded_from_backups_only_on_macos(tmp_path: Path) -> None:
    attributes: dict[tuple[Path, str], bytes] = {}

    def set_attribute(path: Path, name: str, content: bytes) -> None:
        attributes[path, name] = content

    exclude_from_backups(tmp_path, set_attribute, "linux")
    assert attributes == {}
    exclude_from_backups(tmp_path, set_attribute, "darwin")
    name = "com.apple.metadata:com_apple_backup_excludeItem"
    assert attributes == {(tmp_path, name): EXCLUDED}


def test_exclusion_from_backups_ignores_unsupported_attributes(tmp_path: Path) -> None:
    def refuse(path: Path, name: str, content: bytes) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    exclude_from_backups(tmp_path, refuse, "darwin")


def test_write_refuses_to_replace_special_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            write_atomically(path, b"x")
    assert pipe.is_fifo()
    assert Path("/dev/zero").is_char_device()
    write_atomically(link, b"x")
    assert link.read_bytes() == b"x"
    assert sorted(tmp_path.iterdir()) == [link, pipe]


# set aside


def test_what_is_set_aside_keeps_the_first_ones_and_the_last(tmp_path: Path) -> None:
    path = tmp_path / "things"
    for number in range(MAX_BROKEN + 2):
        path.mkdir()
        (path / "number").write_text(str(number), encoding="ascii")
        set_aside(path)
    kept = [(each / "number").read_text() for each in set_aside_names(path)]
    assert kept == ["0", "1", "4"]
    assert len(list(tmp_path.iterdir())) == MAX_BROKEN == 3


def test_setting_aside_what_is_missing_removes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "things"
    for name in set_aside_names(path):
        name.write_text("kept", encoding="ascii")
    with pytest.raises(FileNotFoundError):
        set_aside(path)
    assert len(list(tmp_path.iterdir())) == MAX_BROKEN


def test_links_at_the_names_for_what_is_set_aside_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    path = tmp_path / "things"
    for name in set_aside_names(path):
        name.symlink_to(target)
    path.touch()
    assert set_aside(path).is_file()
    assert target.is_dir()
