"""Finds the MTP head of a model by its files: a layer that drafts tokens, which mlx-lm leaves out.

Qwen publishes it as `mtp.*` tensors of the model. Conversions to MLX lack them; the head is a
repository of its own, such as Qwen3.8-27B-MTP-4bit, and is used if its folder stands next to a
model's whose name begins in the same way. Used by the worker, which loads heads, and by the
front end, which plans their memory. No MLX.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pensieve.untrusted_json import read_object

# Their layers are those of the head as well.
_FAMILIES = frozenset({"qwen3_5", "qwen3_5_moe"})
# Of separate heads, and of the experts' kind, which some have.
_HEAD_TYPES = frozenset({"qwen3_5_mtp", "qwen3_5_moe_mtp"})
HEAD_PREFIX = "mtp."
_HEAD_NAME = re.compile(r"(?P<model>.+?)[-_]MTP(?P<rest>[-_.].*)?", re.ASCII | re.IGNORECASE)
_MAX_CONFIG_BYTES = 8 * 2**20


def has_heads(config: Mapping[str, Any]) -> bool:
    """Whether a model of this config may have an MTP head that pensieve loads."""
    return config.get("model_type") in _FAMILIES


def is_head(config: Mapping[str, Any]) -> bool:
    """Whether this is the config of a separate MTP head that pensieve loads."""
    return config.get("model_type") in _HEAD_TYPES


def head_tensor(name: str) -> str:
    """Return the head's own name of a model's tensor; empty if it is none of the head's."""
    before, prefix, tensor = name.rpartition(HEAD_PREFIX)
    return tensor if prefix and (not before or before.endswith(".")) else ""


def head_folder_of(folder: Path) -> Path | None:
    """Return the folder of the separate head for the model in `folder`; None without one.

    It must be of the same user: a folder that many may write to is no place to find heads in.
    """
    model = _published_name(folder)
    fitting = (head for head in _neighbours(folder) if is_named_for(_published_name(head), model))
    return next((head for head in sorted(fitting) if is_head(config_of(head))), None)


def is_named_for(head: str, model: str) -> bool:
    """Whether a head of this name is one for models of the other: Qwen3.8-27B-MTP-4bit is for
    Qwen3.8-27B-8bit.
    """
    named = _HEAD_NAME.fullmatch(head.casefold())
    return (
        named is not None
        and re.fullmatch(rf"{re.escape(named['model'])}([-_.].*)?", model.casefold()) is not None
    )


def model_named_by(head: str) -> str:
    """Return the likely name of the model that was quantized as its head was."""
    named = _HEAD_NAME.fullmatch(head)
    return named["model"] + (named["rest"] or "") if named else head


def config_of(folder: Path) -> Mapping[str, Any]:
    """Return a folder's config.json; empty if there is none that can be read."""
    file = folder / "config.json"
    try:
        if not file.is_file() or file.stat().st_size > _MAX_CONFIG_BYTES:
            return {}
        return read_object(file.read_bytes())
    except (OSError, ValueError):
        return {}


def _neighbours(folder: Path) -> Iterator[Path]:
    """Yield complete folders with a head's name next to `folder`."""
    try:
        owner = folder.stat().st_uid
        for other in folder.parent.glob("*[-_][Mm][Tt][Pp]*"):
            if other != folder and other.suffix != ".partial" and other.stat().st_uid == owner:
                yield other
    except OSError:
        return


def _published_name(folder: Path) -> str:
    """Return the name of a repository without its owner and revision."""
    return folder.name.partition("@")[0].rpartition("--")[2]
