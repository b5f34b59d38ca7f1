"""Resolve the name that a person types after `--model` to a model source. Fetches nothing."""

import re
from contextlib import suppress
from pathlib import Path

from pensieve.errors import ModelUnavailableError
from pensieve.models.catalog.sources import (
    AUTO_NAMES,
    CATALOG,
    EmbeddedModel,
    HubModel,
    LocalModel,
    ModelSource,
)

_REPO = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
# The folder's name adds a few characters, and file systems allow 255 bytes. The longest repository
# with a commit has 234.
MAX_HUB_NAME_CHARS = 240


def find(name: str) -> ModelSource:
    """Return the model with this catalog name, folder, or Hub repository `owner/name[@revision]`.

    A name in `AUTO_NAMES` selects the catalog's model that suits this machine. Raises
    `ModelUnavailableError` if nothing matches.
    """
    if name in AUTO_NAMES:
        from pensieve.machine import inspect
        from pensieve.models.catalog.recommend import resolve_auto

        return resolve_auto(inspect(), name)
    return _from_catalog(name) or _from_disk(name) or _from_hub(name) or _refuse(name)


def _from_catalog(name: str) -> HubModel | EmbeddedModel | None:
    folded = name.casefold()
    return next((m for m in CATALOG if folded in {m.name.casefold(), m.repo.casefold()}), None)


def _from_disk(name: str) -> LocalModel | None:
    is_path = name in {".", ".."} or name.startswith(("/", "./", "../", "~"))
    try:
        if not is_path and not (name and Path(name, "config.json").is_file()):
            return None
        folder = Path(name).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            folder.joinpath("config.json").lstat()
    except (ValueError, RuntimeError, OSError):  # a NUL, the home of an unknown user, too long
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
    names = [*AUTO_NAMES, *(model.name for model in CATALOG)]
    import difflib

    near = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    raise ModelUnavailableError(
        f"There is no model called {name!r}.{suggestion}",
        hint="See the models with short names, and what they need here:\n  pensieve models\n"
        "For any other, give a Hugging Face repository as owner/name, or the path of an mlx-lm"
        " model folder.",
    )
