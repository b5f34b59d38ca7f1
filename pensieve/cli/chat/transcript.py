"""Saves and loads conversations as JSON with the API's field names."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pensieve.api.messages import request
from pensieve.api.messages.content_blocks import ContentBlock, ImageBlock, TextBlock, ThinkingBlock
from pensieve.atomic_files import write_atomically
from pensieve.cli.client.messages import Turn
from pensieve.errors import NotWritableError, UsageError
from pensieve.untrusted_json import read_json


@dataclass(frozen=True, slots=True)
class Transcript:
    turns: tuple[Turn, ...]
    system: str
    model: str = ""


def save(path: Path, conversation: Transcript) -> None:
    """Write the file, readable by its owner only. Replaces only other transcripts.

    Raises `NotWritableError`.
    """
    if path.exists() and _read(path) is None:
        raise NotWritableError(
            f"{path} exists and is not a conversation; it was not replaced.",
            hint="Choose another name.",
        )
    body = {
        "model": conversation.model,
        "system": conversation.system,
        "messages": [
            turn.as_value().model_dump(exclude_defaults=True) for turn in conversation.turns
        ],
    }
    try:
        write_atomically(
            path, (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        )
    except OSError as error:
        raise NotWritableError(f"{path} cannot be written: {error.strerror}.") from error


def is_transcript(path: Path) -> bool:
    return _read(path) is not None


def load(path: Path) -> Transcript:
    """Raises `UsageError` if the file is missing or no conversation."""
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UsageError(f"{path} is not a readable file.")
    conversation = _read(path)
    if conversation is None:
        raise UsageError(f"{path} is not a conversation.", hint="/save writes such files.")
    return conversation


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


def _turn(stored: object) -> Turn:
    """Raises ValueError for an invalid turn."""
    turn = request.Turn.model_validate(stored)
    match turn.role, turn.content:
        case ("user" | "assistant") as role, (TextBlock(text=text),):
            return Turn(role, text)
        case "user", (*images, TextBlock(text=text)):
            return Turn("user", text, images=tuple(map(_image, images)))
        case "assistant", (ThinkingBlock() as thought, TextBlock(text=text)):
            return Turn("assistant", text, thought.thinking, thought.signature)
        case _:
            raise ValueError(turn.role)


def _image(block: ContentBlock) -> ImageBlock:
    if not isinstance(block, ImageBlock):
        raise ValueError(block.type)  # noqa: TRY004 -- of the file
    return block
