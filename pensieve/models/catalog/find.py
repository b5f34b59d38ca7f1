"""From what a person types after `--model` to where that model comes from. Fetches nothing."""

import re
from contextlib import suppress
from pathlib import Path

from pensieve.errors import ModelUnavailableError
from pensieve.models.catalog.sources import (
    AUTOMATIC_WORDS,
    CATALOG,
    EmbeddedModel,
    HubModel,
    LocalModel,
    ModelSource,
)

_REPO = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
# A folder has the model's name with a few characters more, and file systems end at 255 bytes. The
# longest repository with a commit has 234.
MAX_HUB_NAME_CHARS = 240


def find(name: str) -> ModelSource:
    """The model that `name` means: a catalog name, a folder, or a Hub repository as `owner/name[@revision]`.

    One of `AUTOMATIC_WORDS` is the catalog's model that suits this machine. Raises `ModelUnavailableError` where it
    means none of them.
    """
    if name in AUTOMATIC_WORDS:
        from pensieve.machine import inspect
        from pensieve.models.catalog.recommend import resolve_auto

        return resolve_auto(inspect(), name)
    return _from_catalog(name) or _from_disk(name) or _from_hub(name) or _refuse(name)


def _from_catalog(name: str) -> HubModel | EmbeddedModel | None:
    wanted = name.casefold()
    return next((m for m in CATALOG if wanted in {m.name.casefold(), m.repo.casefold()}), None)


def _from_disk(name: str) -> LocalModel | None:
    is_path = name in {".", ".."} or name.startswith(("/", "./", "../", "~"))
    try:
        if not is_path and not (name and Path(name, "config.json").is_file()):
            return None
        folder = Path(name).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            folder.joinpath("config.json").lstat()
    except (ValueError, RuntimeError, OSError):  # a NUL, nobody's home, too long
        return None
    return LocalModel(name=folder.name, folder=folder)


def _from_hub(name: str) -> HubModel | None:
    repo, _, revision = name.partition("@")
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in name or len(name) > MAX_HUB_NAME_CHARS:
        return None
    if not revision:
        return None if "@" in name else HubModel(name=repo, repo=repo)
    return (
        HubModel(name=name, repo=repo, revision=revision) if _REVISION.fullmatch(revision) else None
    )


def _refuse(name: str) -> ModelSource:
    names = [*AUTOMATIC_WORDS, *(model.name for model in CATALOG)]
    import difflib

    near = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.5)
    question = f" Did you mean {near[0]}?" if near else ""
    raise ModelUnavailableError(
        f"There is no model called {name!r}.{question}",
        hint="The models with short names, and what they need here:\n  pensieve models\n"
        "Any other: a Hugging Face repository as owner/name, or the path of an mlx-lm model folder.",
    )
