"""Check that a model folder's files are complete and loadable. Reads headers, never weights.

Raises `ModelDamagedError` with the file and the command that fixes it; `ModelUnsupportedError` for
models of other kinds.
"""

import errno
import re
import shlex
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, cast

from pensieve import untrusted_json
from pensieve.engine.planning.attention_shape import text_part
from pensieve.engine.planning.mtp_files import is_head, model_named_by
from pensieve.errors import ModelDamagedError
from pensieve.models.fetching.verify import of_other_size
from pensieve.models.folder.architecture_support import (
    check_config,
    check_files,
    installed_mlx_lm,
    model_for_head,
    refuse_head,
)
from pensieve.models.folder.config_limits import implausible_field
from pensieve.models.folder.model_files import read_file, read_header, read_text, start_of
from pensieve.models.folder.snapshot import MARKER, ModelFolder, read_snapshot

LFS_POINTER = b"version https://git-lfs"
MAX_TYPE_CHARS = 100
INDEX = "model.safetensors.index.json"
# Tokenizer files: the one that all newer models have, or those that transformers converts.
_TOKENIZERS = re.compile(r"tokenizer\.json|vocab\.(json|txt)|tekken\.json|.*\.(model|tiktoken)")


def check_model(model: ModelFolder) -> dict[str, Any]:
    """Check the folder and return its config.json. Raises `ModelDamagedError`,
    `ModelUnsupportedError`.
    """
    with readable(model):
        _check_sizes(model)
        config = check_kind(model)
        _check_tokenizer(model)
        _check_weights(model)
        return config


def check_kind(model: ModelFolder) -> dict[str, Any]:
    """Check file names and config.json only, and return that config. Raises like `check_model`."""
    with readable(model):
        check_files(str(model.folder), [file.name for file in model.folder.iterdir()])
        config = read_json(model, "config.json")
    if config is None:
        damaged(model, "config.json", "is missing")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or len(model_type) > MAX_TYPE_CHARS:
        damaged(model, "config.json", "names no model_type")
    if is_head(config):
        _refuse_head(model)
    check_config(str(model.folder), config, installed_mlx_lm())
    if problem := implausible_field(text_part(config)):
        damaged(model, "config.json", problem)
    return config


def _refuse_head(model: ModelFolder) -> NoReturn:
    if (model.folder / MARKER).exists():
        refuse_head(
            model.repo,
            "It is used when its model is served:\n"
            f"  pensieve start --model {model_for_head(model.repo)}",
        )
    served = model.folder.with_name(model_named_by(model.folder.name))
    refuse_head(
        str(model.folder),
        "It is used when its model is served from a folder next to it with a similar name, as"
        " Qwen3.8-27B-4bit is to Qwen3.8-27B-MTP-4bit:\n"
        f"  pensieve start --model {shlex.quote(str(served))}",
    )


def read_json(model: ModelFolder, name: str) -> dict[str, Any] | None:
    """Return a JSON object among the model's files; None if the file does not exist."""
    with readable(model, name):
        try:
            content = read_file(model.folder / name)
        except FileNotFoundError:
            return None
    if content.startswith(LFS_POINTER):
        damaged(model, name, "is a Git LFS pointer, not the file itself")
    try:
        value = untrusted_json.read_json(content, max_bytes=len(content))
    except ValueError as error:
        damaged(model, name, f"is not valid JSON ({error})")
    if not isinstance(value, dict):
        damaged(model, name, "is not a JSON object")
    return cast("dict[str, Any]", value)


def read_template(model: ModelFolder, file: Path) -> str:
    name = str(file.relative_to(model.folder))
    with readable(model, name):
        try:
            return read_text(file)
        except ValueError:
            damaged(model, name, "is not UTF-8")


def damaged(model: ModelFolder, name: str, problem: str) -> NoReturn:
    """Raise `ModelDamagedError` for file `name` of `model`, with the way to get a good one."""
    is_ours = (model.folder / MARKER).exists()
    raise ModelDamagedError(
        f"{name} in {model.folder} {problem}.",
        hint="Compare its files with the published ones, and fetch those that differ again:\n"
        f"  pensieve pull {shlex.quote(model.name)}"
        if is_ours
        else "Copy or convert the model into that folder again.",
    )


@contextmanager
def readable(model: ModelFolder, name: str = "A file") -> Generator[None]:
    """Translate OSErrors of the block, in which the file `name` is read."""
    try:
        yield
    except PermissionError as error:
        raise _denied(model, error) from error
    except OSError as error:
        damaged(model, name, f"cannot be read: {error.strerror}")


def _denied(model: ModelFolder, error: PermissionError) -> ModelDamagedError:
    """Explain a denial by errno.

    EPERM is macOS's privacy control, whatever the file's mode; a service is refused without a
    prompt. EACCES is the file's mode.
    """
    folder = shlex.quote(str(model.folder))
    if error.errno != errno.EPERM:
        hint = f"Make them readable for you:\n  chmod -R u+rX {folder}"
    else:
        hint = (
            "macOS denies access to Documents, Desktop, Downloads, iCloud Drive and external disks"
            " unless you allow a program, and it does not ask you for services. Copy the model"
            " elsewhere, and name that folder:\n"
            f"  cp -R {folder} ~/\n"
            "Or start pensieve in Terminal, where macOS asks you: pensieve start"
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
    """Return the files that mlx-lm will load or that the index lists."""
    listed = _listed_weights(model)
    present = {file.name for file in model.folder.glob("model*.safetensors")}
    if not present and not listed:
        damaged(
            model, "model.safetensors", "is missing (only weights in safetensors files are loaded)"
        )
    return sorted(present.union(listed))


def _listed_weights(model: ModelFolder) -> set[str]:
    listed = (read_json(model, INDEX) or {}).get("weight_map", {})
    if not isinstance(listed, dict):
        damaged(model, INDEX, "has no map of weights")
    names = set(map(str, cast("dict[str, object]", listed).values()))
    if not all(name.endswith(".safetensors") and name == Path(name).name for name in names):
        damaged(model, INDEX, "names files other than weights in this folder")
    return names


def _check_tokenizer(model: ModelFolder) -> None:
    """Check only that a tokenizer exists and is a regular file; load.py parses it."""
    if not any(_TOKENIZERS.fullmatch(file.name) for file in model.folder.iterdir()):
        damaged(model, "tokenizer.json", "is missing, and so is every other kind of tokenizer")
    file = model.folder / "tokenizer.json"
    with readable(model, file.name), suppress(FileNotFoundError):
        if not start_of(file, 1):
            damaged(model, file.name, "is empty")


def _check_weights(model: ModelFolder) -> None:
    names = _weight_names(model)
    if not sum(_checked_tensors(model, name) for name in names):
        damaged(model, names[0], "holds no weights")


def _checked_tensors(model: ModelFolder, name: str) -> int:
    """Check one file of weights and return its number of tensors."""
    file = model.folder / name
    if not file.exists():
        damaged(model, name, "is missing")
    with readable(model, name):
        if start_of(file, len(LFS_POINTER)) == LFS_POINTER:
            damaged(model, name, "is a Git LFS pointer, not the file itself")
        expected, tensors = _expected_size(model, file)
    if (size := file.stat().st_size) != expected:
        damaged(model, name, f"has {size} bytes, but its header describes {expected}")
    return tensors


def _expected_size(model: ModelFolder, file: Path) -> tuple[int, int]:
    """Return the bytes and the number of tensors that a weights file's header describes."""
    try:
        header, start = read_header(file)
        ends = [
            tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"
        ]
    except (ValueError, TypeError, LookupError):
        damaged(model, file.name, "is not a safetensors file")
    if not all(type(end) is int for end in ends):
        damaged(model, file.name, "is not a safetensors file")
    return start + max(ends, default=0), len(ends)
