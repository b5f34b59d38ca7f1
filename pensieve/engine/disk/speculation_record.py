"""A file for each model with what its last loading decided about speculation.

The engine worker writes it; commands read it while no server runs.
"""

import json
import logging
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from pensieve.atomic_files import write_atomically
from pensieve.engine.generation import SpeculationState
from pensieve.private_files import make_folder, read_private
from pensieve.untrusted_json import read_json

_log = logging.getLogger("pensieve.engine")

_MAX_BYTES = 4096


def store_state(folder: Path, model_folder: Path, state: SpeculationState) -> None:
    try:
        make_folder(folder)
        write_atomically(_file(folder, model_folder), json.dumps(asdict(state)).encode())
    except OSError as error:
        _log.warning("storing why speculation is on or off failed, `show` lacks it: %s", error)


def stored_state(folder: Path, model_folder: Path) -> SpeculationState | None:
    """Return None if the model was not loaded yet, or the file is not as this version writes it."""
    try:
        content = read_private(_file(folder, model_folder), _MAX_BYTES)
        return SpeculationState.from_json(read_json(content, max_bytes=_MAX_BYTES))
    except (OSError, ValueError):
        return None


def _file(folder: Path, model_folder: Path) -> Path:
    digest = blake2b(bytes(model_folder), digest_size=8).hexdigest()
    return folder / f"speculation-{digest}.json"
