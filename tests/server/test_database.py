"""Databases on disk: whole transactions, a full disk, damage, other versions, planted links."""

import errno
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pensieve.server.database import FILES, RESERVE_BYTES, VERSION, Database

SCHEMA = "CREATE TABLE entries (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;"
CHILD = """
import sys
from pathlib import Path
from tests.server.test_database import SCHEMA, Database, add
database = Database(Path(sys.argv[1]), SCHEMA)
for number in range(10_000):
    add(database, str(number))
    print(number, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "things"


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    database = Database(folder, SCHEMA)
    yield database
    database.close()


def add(database: Database, text: str) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO entries (text) VALUES (?)", (text,))


def texts(database: Database) -> list[str]:
    with database.read() as connection:
        return [text for (text,) in connection.execute("SELECT text FROM entries ORDER BY number")]


def file_of(folder: Path) -> Path:
    return folder / "things.db"


def broken(folder: Path) -> Path:
    return folder.with_name("things.broken")


def test_missing_database_is_empty_and_is_not_created_by_reading(
    database: Database, tmp_path: Path
) -> None:
    assert texts(database) == []
    assert list(tmp_path.iterdir()) == []


def test_written_rows_are_read_also_after_reopening(database: Database, folder: Path) -> None:
    add(database, "a")
    add(database, "b")
    assert texts(database) == texts(Database(folder, SCHEMA)) == ["a", "b"]
    database.close()
    assert {path.name for path in folder.iterdir()} == {"things.db", "reserve"}
    assert texts(database) == ["a", "b"]


def test_failed_transaction_leaves_nothing(database: Database) -> None:
    add(database, "a")
    with pytest.raises(KeyError), database.write() as connection:  # noqa: PT012 -- the block's end
        connection.execute("INSERT INTO entries (text) VALUES ('b')")
        raise KeyError
    assert texts(database) == ["a"]


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    add(database, "a")
    with database.write() as connection:
        connection.execute("INSERT INTO entries (text) VALUES ('b')")
        assert texts(database) == ["a"]
    assert texts(database) == ["a", "b"]


def test_killed_process_loses_no_committed_row(folder: Path) -> None:
    database = Database(folder, SCHEMA)
    for _ in range(3):
        before = len(texts(database))
        database.close()
        command = [sys.executable, "-c", CHILD, str(folder)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line == b"50\n":
                    child.kill()
                    break
            # It may have got further before the kill reached it.
            reported = int((line + child.stdout.read()).split()[-1]) + 1
        assert reported <= len(texts(database)) - before <= reported + 1
    database.close()


def test_full_disk_is_reported_and_leaves_nothing(database: Database) -> None:
    add(database, "a")
    with database.write() as connection:
        connection.execute("PRAGMA max_page_count = 10")
    with pytest.raises(OSError) as full, database.write() as connection:  # noqa: PT011, PT012
        connection.execute("INSERT INTO entries (text) VALUES ('b')")
        connection.execute("INSERT INTO entries (text) VALUES (?)", ("x" * 100_000,))
    assert full.value.errno == errno.ENOSPC
    assert texts(database) == ["a"]
    add(database, "c")
    assert texts(database) == ["a", "c"]


def test_reserve_is_released_only_for_what_frees_space(database: Database, folder: Path) -> None:
    add(database, "a")
    reserve = folder / "reserve"
    with database.write():
        assert reserve.stat().st_size == RESERVE_BYTES
    with database.free() as connection:
        assert not reserve.exists()
        connection.execute("DELETE FROM entries")
    assert reserve.stat().st_size == RESERVE_BYTES
    assert texts(database) == []


def test_freed_space_is_given_back(database: Database, folder: Path) -> None:
    add(database, "x" * 10**6)
    with database.write() as connection:
        connection.execute("DELETE FROM entries")
    database.close()
    assert file_of(folder).stat().st_size < 10**5


@pytest.mark.parametrize("content", [b"not a database", b"\0" * 8192, b"SQLite format 3\0" * 99])
def test_damaged_database_is_set_aside_with_its_folder(
    database: Database, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    file_of(folder).write_bytes(content)
    (folder / "upload").write_text("kept")
    assert texts(database) == []
    add(database, "a")
    assert texts(database) == ["a"]
    assert file_of(broken(folder)).read_bytes()[:100] == content[:100]
    assert (broken(folder) / "upload").read_text() == "kept"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"rm -r {broken(folder)}" in caplog.text


def test_a_second_damage_keeps_what_the_first_one_set_aside(
    database: Database, folder: Path
) -> None:
    for text in ("first", "second"):
        folder.mkdir(parents=True, exist_ok=True)
        file_of(folder).write_bytes(text.encode())
        assert texts(database) == []
        database.close()
    assert file_of(broken(folder)).read_bytes() == b"first"
    assert file_of(folder.with_name("things.broken.2")).read_bytes() == b"second"


def test_database_of_another_version_is_set_aside(
    database: Database, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO entries (text) VALUES ('newer')")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    add(database, "a")
    assert texts(database) == ["a"]
    assert f"it is of version {VERSION + 1}, not {VERSION}" in caplog.text
    newer = sqlite3.connect(file_of(broken(folder)))
    assert newer.execute("SELECT text FROM entries").fetchall() == [("newer",)]
    newer.close()


def test_damage_found_later_is_reported_once_and_set_aside_at_the_next_start(
    database: Database, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        add(database, f"{number}" * 1000)
    database.close()
    content = bytearray(file_of(folder).read_bytes())
    content[2 * 4096 :] = b"\xff" * (len(content) - 2 * 4096)
    file_of(folder).write_bytes(content)
    for _ in range(2):
        with pytest.raises(OSError, match="malformed"):
            texts(database)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "pensieve restart" in caplog.text
    database.close()
    add(database, "a")
    assert texts(database) == ["a"]
    assert file_of(broken(folder)).exists()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=20))
def test_no_damage_raises_anything_but_os_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "things"
    database = Database(folder, SCHEMA)
    for text in ("a", "b" * 5000, "c" * 9000):
        add(database, text)
    database.close()
    content = bytearray(file_of(folder).read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    file_of(folder).write_bytes(content)
    for _ in range(4):
        try:
            texts(database)
            add(database, "d")
        except OSError:
            continue
    database.close()


def test_removed_database_is_created_again(database: Database, folder: Path) -> None:
    add(database, "a")
    shutil.rmtree(folder)
    assert texts(database) == []
    add(database, "b")
    assert texts(database) == texts(Database(folder, SCHEMA)) == ["b"]


@pytest.mark.parametrize("suffix", FILES)
def test_planted_link_is_not_followed(
    database: Database, folder: Path, tmp_path: Path, suffix: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    folder.mkdir(parents=True)
    folder.joinpath(f"things.db{suffix}").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        add(database, "a")
    assert precious.read_text() == "kept"


def test_linked_folder_is_not_used(database: Database, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        add(database, "a")
    assert list((tmp_path / "elsewhere").iterdir()) == []
