"""Tells whether two machines have the same files of a model, without reading weights."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from pensieve.models.folder.snapshot import ModelFolder

# Read whole; of weights, the size is compared.
_SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json")


def name_of(model: ModelFolder) -> str:
    """Return what another machine finds the model by; a folder of a person has the same path
    there.
    """
    return model.repo if model.repo.startswith("/") else model.name


def identity_of(folder: Path) -> dict[str, str]:
    """Return what must be equal, by file name: sizes of weights, hashes of small files."""
    sizes = {file.name: f"{file.stat().st_size} bytes" for file in folder.glob("*.safetensors")}
    small = {
        name: sha256((folder / name).read_bytes()).hexdigest()
        for name in _SMALL
        if (folder / name).is_file()
    }
    return dict(sorted({**sizes, **small}.items()))


def difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return the first file that differs, in words; empty if none does."""
    for name in sorted({*expected, *found}):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is there and not here"
        if expected[name] != found[name]:
            return f"{name} differs"
    return ""
