"""Conversations kept in files: JSON with the API's own names, for this program and any other."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pensieve.atomic_files import write_atomically
from pensieve.cli.client.messages import Turn
from pensieve.errors import NotWritableError, UsageError
from pensieve.untrusted_json import read_json


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is kept of a conversation."""

    turns: tuple[Turn, ...]
    system: str
    model: str = ""


def save(path: Path, kept: Transcript) -> None:
    """Write it, for its owner alone. Raises `NotWritableError`; only a kept conversation is replaced."""
    if path.exists() and _read(path) is None:
        raise NotWritableError(
            f"{path} exists and is no conversation; it is left as it is.",
            hint="Choose another name.",
        )
    body = {
        "model": kept.model,
        "system": kept.system,
        "messages": [turn.as_json() for turn in kept.turns],
    }
    try:
        write_atomically(
            path, (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        )
    except OSError as error:
        raise NotWritableError(f"{path} cannot be written: {error.strerror}.") from error


def load(path: Path) -> Transcript:
    """Read one. Raises `UsageError` where there is none."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UsageError(f"There is no file {path} to read.")
    kept = _read(path)
    if kept is None:
        raise UsageError(f"{path} holds no conversation.", hint="/save writes such files.")
    return kept


def _read(path: Path) -> Transcript | None:
    try:
        body: Any = read_json(path.read_text(encoding="utf-8"))
        turns = tuple(map(_turn, body["messages"]))
        system, model = body.get("system", ""), body.get("model", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    alternate = all(turn.role == ("user", "assistant")[at % 2] for at, turn in enumerate(turns))
    is_whole = alternate and len(turns) % 2 == 0
    return Transcript(turns, str(system), str(model)) if is_whole else None


def _turn(body: dict[str, Any]) -> Turn:
    """Raises ValueError and its like where it is none."""
    role, content = body["role"], body["content"]
    if role not in {"user", "assistant"}:
        raise ValueError(role)
    if isinstance(content, str):
        return Turn(role, content)
    thought, text = cast("list[dict[str, str]]", content)
    return Turn(role, text["text"], thought["thinking"], thought["signature"])
