"""Parse and check a Hub's listing of a repository.

The Hub can be any server: HF_ENDPOINT names it, or a proxy answers in its place. The names become
file names here, and the sizes limit the bytes to receive.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pensieve.models.folder.snapshot import MARKER, ModelFile
from pensieve.untrusted_json import read_object

# The listing of 10 000 files has 3 MB; the largest model of 2026 has 250 files.
MAX_BYTES = 16 * 2**20
MAX_FILES = 20_000
MAX_NAME_CHARS = 200
# The largest published model takes 1.4 TB.
MAX_FILE_BYTES = 2**44

# Files that mlx-lm and tokenizers load, at the top of the repository. Never code, never pickles.
_MODEL_FILES = re.compile(
    r"model[\w.-]*\.safetensors|[\w.-]+\.(json|jinja)|(merges|vocab)\.txt|tokenizer\.model"
    r"|LICENSE[\w.-]*",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at a commit."""

    commit: str
    task: str | None
    names: tuple[str, ...]  # of all files
    model_files: tuple[ModelFile, ...]


def read_listing(body: bytes) -> Listing:
    """Raises ValueError for anything but a Hub's listing."""
    listing = read_object(body, max_bytes=MAX_BYTES)
    commit, task, files = listing.get("sha"), listing.get("pipeline_tag"), listing.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ValueError("it names no commit")
    if not isinstance(files, list) or len(cast("list[object]", files)) > MAX_FILES:
        raise ValueError("it lists no files, or too many")
    entries = [_name_and_fields(entry) for entry in cast("list[object]", files)]
    model_files = tuple(_file(name, entry) for name, entry in entries if _is_model_file(name))
    # Names that differ in case only are one file on a Mac's disk.
    if len({file.name.casefold() for file in model_files}) != len(model_files):
        raise ValueError("it lists a file twice")
    names = tuple(name for name, _ in entries)
    return Listing(commit, task if isinstance(task, str) else None, names, model_files)


def _name_and_fields(entry: object) -> tuple[str, Mapping[str, Any]]:
    fields = _fields(entry)
    name = fields.get("rfilename")
    if not isinstance(name, str):
        raise ValueError("it lists a file without a name")  # noqa: TRY004 -- callers catch one kind
    return name, fields


def _is_model_file(name: str) -> bool:
    """Exclude the marker, which only pensieve writes, and names longer than any published one."""
    is_short = len(name) <= MAX_NAME_CHARS
    return is_short and name.casefold() != MARKER and _MODEL_FILES.fullmatch(name) is not None


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
        raise ValueError(f"it lists no valid size of {name}")
    return size


def _hash(name: str, value: object, form: re.Pattern[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"it lists no valid hash of {name}")
    return value
