"""The file of named keys: what it holds, who may change it, and what is refused."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pensieve.credentials.key_usage import KeyUsage, read_usage, write_usage
from pensieve.credentials.named_keys import (
    DEFAULT_CONCURRENT,
    KeyLimits,
    add_key,
    limit_key,
    read_keys,
    revoke_key,
    sha256_of,
)
from pensieve.errors import NotWritableError, StorageError, UsageError

NONE = KeyLimits()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def test_key_is_random_and_only_its_hash_is_stored(file: Path) -> None:
    first, second = add_key(file, "anna", NONE, 1.0), add_key(file, "ben", NONE, 2.0)
    assert re.fullmatch(r"pensieve_[0-9a-f]{64}", first)
    assert first != second
    assert first.removeprefix("pensieve_") not in file.read_text()
    assert [(key.name, key.sha256, key.created_at) for key in read_keys(file)] == [
        ("anna", sha256_of(first.encode()), 1.0),
        ("ben", sha256_of(second.encode()), 2.0),
    ]


def test_file_and_folder_are_private(file: Path) -> None:
    add_key(file, "anna", NONE, 1.0)
    modes = [path.stat().st_mode & 0o777 for path in (file, file.parent)]
    assert modes == [0o600, 0o700]


def test_revoked_key_is_gone_and_its_name_is_free(file: Path) -> None:
    first = add_key(file, "anna", NONE, 1.0)
    revoke_key(file, "anna")
    assert read_keys(file) == []
    assert add_key(file, "anna", NONE, 2.0) != first


def test_limits_are_stored_and_changed_without_a_new_key(file: Path) -> None:
    add_key(file, "anna", KeyLimits(2, 30, 10**9), 1.0)
    (before,) = read_keys(file)
    changed = limit_key(file, "anna", lambda limits: KeyLimits(limits.concurrent, 60, 0))
    (after,) = read_keys(file)
    assert (before.limits, before.sha256) == (KeyLimits(2, 30, 10**9), after.sha256)
    assert changed == after.limits == KeyLimits(2, 60, 0)
    assert KeyLimits().concurrent == DEFAULT_CONCURRENT


@pytest.mark.parametrize(
    "name", ["", "Anna", "a b", "-a", ".a", "a/b", "a\n", "ä", "a" * 33, "../a", "a\x00"]
)
def test_name_that_is_not_plain_is_refused(file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        add_key(file, name, NONE, 1.0)
    assert not file.exists()


def test_name_that_is_taken_or_unknown_is_refused(file: Path) -> None:
    add_key(file, "anna", NONE, 1.0)
    with pytest.raises(UsageError, match="There is a key named anna"):
        add_key(file, "anna", NONE, 2.0)
    for change in (revoke_key, lambda file, name: limit_key(file, name, lambda limits: limits)):
        with pytest.raises(UsageError, match="There is no key named"):
            change(file, "ben")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"keys": 1}',
        '{"keys": [1]}',
        '{"keys": [{"name": "a"}]}',
        "{" * 5000,
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_damaged_file_is_refused_and_not_replaced(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text, encoding="latin-1")
    for use in (lambda: read_keys(file), lambda: add_key(file, "anna", NONE, 1.0)):
        with pytest.raises(StorageError, match="damaged"):
            use()
    assert file.read_text(encoding="latin-1") == text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "A"),
        ("name", 1),
        ("sha256", "00"),
        ("created_at", "x"),
        ("limits", None),
        ("limits", {"concurrent": -1, "requests_per_minute": 0, "tokens_per_day": 0}),
        ("limits", {"concurrent": True, "requests_per_minute": 0, "tokens_per_day": 0}),
    ],
)
def test_entry_with_a_wrong_field_is_refused(file: Path, field: str, value: object) -> None:
    add_key(file, "anna", NONE, 1.0)
    body = json.loads(file.read_text())
    body["keys"][0][field] = value
    file.write_text(json.dumps(body))
    with pytest.raises(StorageError):
        read_keys(file)


def test_commands_at_the_same_time_lose_no_key(file: Path) -> None:
    names = [f"key-{number}" for number in range(20)]
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda name: add_key(file, name, NONE, 1.0), names))
    assert sorted(key.name for key in read_keys(file)) == sorted(names)


def test_link_in_place_of_the_file_is_not_followed(file: Path, tmp_path: Path) -> None:
    add_key(file, "anna", NONE, 1.0)
    stolen = file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(stolen)
    with pytest.raises(StorageError, match="symbolic link"):
        read_keys(file)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(NotWritableError, match=r"keys\.json cannot be written"):
        add_key(tmp_path / "state" / "keys.json", "anna", NONE, 1.0)


def test_usage_is_read_as_it_was_written(tmp_path: Path) -> None:
    usage = {"anna": KeyUsage(12.5, 3, 40), "ben": KeyUsage()}
    write_usage(tmp_path / "usage.json", usage)
    assert read_usage(tmp_path / "usage.json") == usage
    assert [usage["anna"].tokens_on(day) for day in (3, 4)] == [40, 0]


@pytest.mark.parametrize("text", ["", "[]", '{"anna": 1}', '{"anna": {"day": "x"}}'])
def test_damaged_usage_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "usage.json"
    file.write_text(text)
    assert all(usage == KeyUsage() for usage in read_usage(file).values())
