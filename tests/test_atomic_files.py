"""Files that are whole or not there, and durable where that is asked for."""

import errno
import os
from pathlib import Path

import pytest

from pensieve.atomic_files import (
    TEMPORARY,
    UNSUPPORTED,
    exclude_from_backups,
    sync,
    sync_path,
    write_atomically,
)


class Drive:
    """Counts what it is asked to empty its cache for, and refuses where it is told to."""

    def __init__(self, refusal: int | None = None) -> None:
        self.descriptors: list[int] = []
        self._refusal = refusal

    def __call__(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        if self._refusal is not None:
            raise OSError(self._refusal, os.strerror(self._refusal))


# fsync(2) of it fails, so that a test sees whether it was called.
NOT_OPEN = 10**6


def test_a_drive_that_empties_its_cache_needs_no_fsync() -> None:
    drive = Drive()
    sync(NOT_OPEN, drive)
    assert drive.descriptors == [NOT_OPEN]


@pytest.mark.parametrize("refusal", sorted(UNSUPPORTED))
def test_a_file_system_without_full_sync_gets_fsync(refusal: int, tmp_path: Path) -> None:
    drive = Drive(refusal)
    with (tmp_path / "file").open("wb") as file:
        sync(file.fileno(), drive)
        assert drive.descriptors == [file.fileno()]
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(NOT_OPEN, drive)


def test_a_drive_that_fails_is_told() -> None:
    with pytest.raises(OSError, match="Input/output"):
        sync(1, Drive(errno.EIO))


def test_files_and_folders_can_be_synced(tmp_path: Path) -> None:
    sync_path(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    sync_path(tmp_path / "file")


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_file_is_written_whole_in_pieces(is_durable: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert write_atomically(file, [b"one", memoryview(b"two")], is_durable=is_durable) == 6
    assert file.read_bytes() == b"onetwo"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_write_that_fails_leaves_what_was_there(is_durable: bool, tmp_path: Path) -> None:
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


def test_a_folder_is_excluded_from_time_machine_on_a_mac_alone(tmp_path: Path) -> None:
    attributes: dict[tuple[Path, str], bytes] = {}

    def set_attribute(path: Path, name: str, content: bytes) -> None:
        attributes[path, name] = content

    exclude_from_backups(tmp_path, set_attribute, "linux")
    assert attributes == {}
    exclude_from_backups(tmp_path, set_attribute, "darwin")
    name = "com.apple.metadata:com_apple_backup_excludeItem"
    assert attributes == {(tmp_path, name): EXCLUDED}


def test_a_file_system_without_attributes_is_no_error(tmp_path: Path) -> None:
    def refuse(path: Path, name: str, content: bytes) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    exclude_from_backups(tmp_path, refuse, "darwin")


def test_what_is_not_a_regular_file_is_never_replaced(tmp_path: Path) -> None:
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
