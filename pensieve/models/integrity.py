"""Whether a model folder's files are whole and of a kind that pensieve loads. Reads headers, never weights.

Raises `ModelDamagedError` naming the file, and the command that fixes it; `ModelUnsupportedError` for other kinds.
"""

import errno
import json
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

from pensieve.errors import ModelDamagedError
from pensieve.models.folder import MARKER, ModelFolder, read_snapshot
from pensieve.models.support import check_config, check_files, installed_mlx_lm
from pensieve.models.verify import of_other_size

LFS_POINTER = b"version https://git-lfs"
# A safetensors header is JSON behind its length in 8 bytes; the format's own limit (safetensors 0.4).
LONGEST_HEADER = 100_000_000


def check(model: ModelFolder) -> dict[str, Any]:
    """Check the folder; its config.json. Raises `ModelDamagedError`, `ModelUnsupportedError`."""
    with _readable(model):
        _check_sizes(model)
        config = check_kind(model)
        for name in _weight_names(model):
            _check_safetensors(model, name)
        return config


def check_kind(model: ModelFolder) -> dict[str, Any]:
    """Check by its files' names and its config.json that mlx-lm loads such a model; that config. Raises as `check` does."""
    with _readable(model):
        check_files(str(model.folder), [file.name for file in model.folder.iterdir()])
        config = read_json(model, "config.json")
    if config is None:
        damaged(model, "config.json", "is missing")
    if not isinstance(config.get("model_type"), str):
        damaged(model, "config.json", "names no model_type")
    check_config(str(model.folder), config, installed_mlx_lm())
    return config


def read_json(model: ModelFolder, name: str) -> dict[str, Any] | None:
    """A JSON object among the model's files; None where there is no such file."""
    file = model.folder / name
    if not file.exists():
        return None
    content = file.read_bytes()
    if content.startswith(LFS_POINTER):
        damaged(model, name, "is a Git LFS pointer, not the file itself")
    try:
        found = json.loads(content)
    except ValueError as error:
        damaged(model, name, f"is not valid JSON ({error})")
    if not isinstance(found, dict):
        damaged(model, name, "is not a JSON object")
    return cast("dict[str, Any]", found)


def damaged(model: ModelFolder, name: str, what: str) -> NoReturn:
    """Say that file `name` of `model` is not as it should be, and how to get a good one."""
    is_ours = (model.folder / MARKER).exists()
    raise ModelDamagedError(
        f"{name} in {model.folder} {what}.",
        hint="Compare its files with the published ones; what differs is fetched anew:\n"
        f"  pensieve pull {shlex.quote(model.name)}"
        if is_ours
        else "Copy or convert the model into that folder again.",
    )


@contextmanager
def _readable(model: ModelFolder) -> Generator[None]:
    """Translate what the system refuses while in the block."""
    try:
        yield
    except PermissionError as error:
        raise _denied(model, error) from error


def _denied(model: ModelFolder, error: PermissionError) -> ModelDamagedError:
    """EPERM is macOS's privacy control, whatever the file's mode: a service is refused without a question. EACCES is the mode."""
    folder = shlex.quote(str(model.folder))
    if error.errno != errno.EPERM:
        hint = f"Make them yours to read:\n  chmod -R u+rX {folder}"
    else:
        hint = (
            "macOS keeps Documents, Desktop, Downloads, iCloud Drive and external disks from programs that it has not asked about,"
            " and it asks about no service. Copy the model elsewhere, and name that folder:\n"
            f"  cp -R {folder} ~/\n"
            "Or start pensieve in Terminal, which macOS asks about: pensieve start"
        )
    return ModelDamagedError(
        f"The model's files in {model.folder} cannot be read: {error.strerror}.", hint=hint
    )


def _check_sizes(model: ModelFolder) -> None:
    if (snapshot := read_snapshot(model.folder / MARKER)) is None:
        return
    for name in of_other_size(model.folder, snapshot):
        file = model.folder / name
        has = f"has {file.stat().st_size} bytes" if file.exists() else "is missing"
        damaged(model, name, f"{has}, unlike what was published")


def _weight_names(model: ModelFolder) -> list[str]:
    """Every file that mlx-lm will load or that the index says it needs."""
    index = read_json(model, "model.safetensors.index.json") or {}
    listed = cast("dict[str, str]", index.get("weight_map", {})).values()
    found = {file.name for file in model.folder.glob("model*.safetensors")}
    if not found and not listed:
        damaged(
            model, "model.safetensors", "is missing (only weights in safetensors files are loaded)"
        )
    return sorted(found.union(listed))


def _check_safetensors(model: ModelFolder, name: str) -> None:
    file = model.folder / name
    if not file.exists():
        damaged(model, name, "is missing")
    with file.open("rb") as content:
        start = content.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            damaged(model, name, "is a Git LFS pointer, not the file itself")
        length = int.from_bytes(start[:8], "little")
        content.seek(8)
        header = content.read(length) if length <= LONGEST_HEADER else b""
    expected = _expected_size(header, length)
    if expected is None:
        damaged(model, name, "is no safetensors file")
    if (size := file.stat().st_size) != expected:
        damaged(model, name, f"has {size} bytes where its header tells of {expected}")


def _expected_size(header: bytes, length: int) -> int | None:
    try:
        tensors = json.loads(header)
        ends = [
            tensor["data_offsets"][1] for key, tensor in tensors.items() if key != "__metadata__"
        ]
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return 8 + length + max(ends, default=0)
