"""What a Hub says of a repository, from its bytes to checked values.

A Hub may be anybody's: HF_ENDPOINT names it, or a proxy stands in its place. Every name becomes a
file's name here, every size a promise of bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pensieve.models.folder.snapshot import MARKER, ModelFile
from pensieve.untrusted_json import read_object

# 10 000 files have 3 MB of listing; the largest model of 2026 has 250.
MAX_BYTES = 16 * 2**20
MAX_FILES = 20_000
MAX_NAME_LETTERS = 200
# The largest published model takes 1.4 TB.
MAX_FILE_BYTES = 2**44

# What mlx-lm loads and what a tokenizer is made of, at the top of the repository. Never code, never
# pickles.
_WANTED = re.compile(
    r"model[\w.-]*\.safetensors|[\w.-]+\.(json|jinja)|(merges|vocab)\.txt|tokenizer\.model"
    r"|LICENSE[\w.-]*",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at a commit. names: of all its files; wanted: those that a model is made of."""

    commit: str
    task: str | None
    names: tuple[str, ...]
    wanted: tuple[ModelFile, ...]


def read_listing(body: bytes) -> Listing:
    """Raises ValueError where that is no listing that a Hub gives."""
    stated = read_object(body, max_bytes=MAX_BYTES)
    commit, task, files = stated.get("sha"), stated.get("pipeline_tag"), stated.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ValueError("it names no commit")
    if not isinstance(files, list) or len(cast("list[object]", files)) > MAX_FILES:
        raise ValueError("it lists no files, or too many")
    entries = [_named(entry) for entry in cast("list[object]", files)]
    wanted = tuple(_file(name, entry) for name, entry in entries if _is_wanted(name))
    # On a Mac's disk they would be one file.
    if len({file.name.casefold() for file in wanted}) != len(wanted):
        raise ValueError("it lists a file twice")
    names = tuple(name for name, _ in entries)
    return Listing(commit, task if isinstance(task, str) else None, names, wanted)


def _named(entry: object) -> tuple[str, Mapping[str, Any]]:
    fields = _fields(entry)
    name = fields.get("rfilename")
    if not isinstance(name, str):
        raise ValueError("it lists a file without a name")  # noqa: TRY004 -- callers catch one kind
    return name, fields


def _is_wanted(name: str) -> bool:
    """The marker is ours alone. Names longer than any published one are nothing that mlx-lm loads."""
    is_short = len(name) <= MAX_NAME_LETTERS
    return is_short and name.casefold() != MARKER and _WANTED.fullmatch(name) is not None


def _file(name: str, entry: Mapping[str, Any]) -> ModelFile:
    lfs = entry.get("lfs")
    if lfs is None:
        return ModelFile(name, _size(name, entry), git_sha1=_hash(name, entry.get("blobId"), _SHA1))
    fields = _fields(lfs)
    return ModelFile(name, _size(name, fields), sha256=_hash(name, fields.get("sha256"), _SHA256))


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _size(name: str, fields: Mapping[str, Any]) -> int:
    size = fields.get("size")
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise ValueError(f"it does not tell the size of {name}")
    return size


def _hash(name: str, stated: object, form: re.Pattern[str]) -> str | None:
    if stated is None:
        return None
    if not isinstance(stated, str) or not form.fullmatch(stated):
        raise ValueError(f"it tells no hash of {name} that is one")
    return stated
