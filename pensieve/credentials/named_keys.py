"""The keys of a team: `keys.json` holds their names, limits and hashes, never a key.

`pensieve keys` writes the file, a running server reads it when it has changed. A key is 256 random
bits, so a hash of it cannot be guessed, and a slow hash would protect nothing more: it would only
cost each request its time. Found by its hash, a key needs no comparison in constant time either:
timing could tell of hashes, from which no key follows.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from pensieve.atomic_files import write_atomically
from pensieve.errors import NotWritableError, StorageError, UsageError
from pensieve.private_files import make_folder, open_private, read_private
from pensieve.untrusted_json import read_object

VERSION = 1
MAX_BYTES = 2**20
MAX_KEYS = 1000
# Secret scanners and the bundle of `pensieve doctor` find a key by it.
PREFIX = "pensieve_"
KEY_BYTES = 32
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)
# As many as run together: with more at once a client only waits, and fills the queue of all.
DEFAULT_CONCURRENT = 8


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """0: no limit."""

    concurrent: int = DEFAULT_CONCURRENT  # requests for answers at one time
    requests_per_minute: int = 0
    tokens_per_day: int = 0  # of prompts, without cached ones, and of answers; days of UTC


@dataclass(frozen=True, slots=True)
class NamedKey:
    name: str
    sha256: str
    created_at: float  # Unix seconds
    limits: KeyLimits = KeyLimits()


def sha256_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def read_keys(file: Path) -> Sequence[NamedKey]:
    """Return the keys in order of creation; none without a file. Raises `StorageError`."""
    try:
        body = read_object(read_private(file, MAX_BYTES))
        return [_key(entry) for entry in cast("list[dict[str, Any]]", body["keys"])]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(
            f"{file} is damaged, so no key in it is accepted.",
            hint=f"Remove it and create the keys again:\n  rm '{file}'\n  pensieve keys add NAME",
        ) from error


def add_key(file: Path, name: str, limits: KeyLimits, now: float) -> str:
    """Return a new key, which only its owner will have. Raises `UsageError` for a name that is
    taken or not allowed, `StorageError`, `NotWritableError`.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a key; it can be up to 32 lower-case letters,"
            " digits, dots, underscores and hyphens, such as anna or build-server."
        )
    key = f"{PREFIX}{secrets.token_hex(KEY_BYTES)}"

    def with_new(keys: Sequence[NamedKey]) -> Sequence[NamedKey]:
        if any(each.name == name for each in keys):
            raise UsageError(
                f"There is a key named {name}.",
                hint=f"Replace it: the old one is refused from then on:\n"
                f"  pensieve keys revoke {name}\n  pensieve keys add {name}",
            )
        if len(keys) >= MAX_KEYS:
            raise UsageError(f"There are {MAX_KEYS} keys, and no more can be added.")
        return [*keys, NamedKey(name, sha256_of(key.encode()), now, limits)]

    _change(file, with_new)
    return key


def revoke_key(file: Path, name: str) -> None:
    """Raises `UsageError` for an unknown name, `StorageError`, `NotWritableError`."""

    def without(keys: Sequence[NamedKey]) -> Sequence[NamedKey]:
        _require(keys, name)
        return [each for each in keys if each.name != name]

    _change(file, without)


def limit_key(file: Path, name: str, limits_of: Callable[[KeyLimits], KeyLimits]) -> KeyLimits:
    """Change a key's limits; return them. Raises as `revoke_key`."""
    changed: list[KeyLimits] = []

    def with_limits(keys: Sequence[NamedKey]) -> Sequence[NamedKey]:
        changed.append(limits_of(_require(keys, name).limits))
        return [replace(each, limits=changed[-1]) if each.name == name else each for each in keys]

    _change(file, with_limits)
    return changed[-1]


def _require(keys: Iterable[NamedKey], name: str) -> NamedKey:
    for each in keys:
        if each.name == name:
            return each
    raise UsageError(
        f"There is no key named {name[:80]!r}.", hint="See them all:\n  pensieve keys list"
    )


def _change(file: Path, change: Callable[[Sequence[NamedKey]], Sequence[NamedKey]]) -> None:
    try:
        make_folder(file.parent)
        with _locked(file):
            keys = [asdict(each) for each in change(read_keys(file))]
            text = json.dumps({"version": VERSION, "keys": keys}, indent=2) + "\n"
            write_atomically(file, text.encode())
    except OSError as error:
        raise NotWritableError(f"The file {file} cannot be written: {error.strerror}.") from error


@contextmanager
def _locked(file: Path) -> Generator[None]:
    """Keep other commands from changing the file in the block. The lock's own file stays."""
    descriptor = open_private(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key(entry: dict[str, Any]) -> NamedKey:
    """Raises ValueError, TypeError, KeyError, AttributeError for anything but a key."""
    limits = {each.name: entry["limits"][each.name] for each in fields(KeyLimits)}
    key = NamedKey(entry["name"], entry["sha256"], float(entry["created_at"]), KeyLimits(**limits))
    is_whole = NAME.fullmatch(key.name) and re.fullmatch(r"[0-9a-f]{64}", key.sha256)
    if not is_whole or not all(type(each) is int and each >= 0 for each in limits.values()):
        raise ValueError(key.name)
    return key
