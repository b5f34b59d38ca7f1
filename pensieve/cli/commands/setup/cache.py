"""`pensieve cache`: what kept prompts take on disk, what they may take, and how they are given up."""

import shutil
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Literal, cast

from pensieve.cli.lifecycle.status_facts import table
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import counted, in_bytes
from pensieve.daemon.health_client import EngineFigures, ask
from pensieve.daemon.server_record import current
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

GB = 10**9


def cache(what: Literal["show", "clear"] = "show", /, *, json: bool = False) -> int:
    """Show the prompts kept on disk, or clear them.

    For example:
      pensieve cache
      pensieve cache clear

    They let a conversation go on after a restart without being processed again.
    Cleared, the next turn is processed anew; nothing else is lost.

    Parameters
    ----------
    what
        show, unless given; or clear.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    folder = settings.paths.prefixes
    files = _files(folder)
    kept = sum(map(_size, files))
    if what == "clear":
        for model_folder in folder.glob("*"):
            shutil.rmtree(model_folder, ignore_errors=True)
    told = {
        "folder": str(folder),
        "files": len(files),
        "bytes": kept,
        "is_cleared": what == "clear",
        **_limits(settings),
    }
    output.data(dumps(told, indent=2) if json else _said(told))
    return 0


def _limits(settings: Settings) -> dict[str, int | bool | None]:
    """What the running engine says, else what is set; None: what the engine will choose at its start."""
    record = current(settings.paths)
    engine = ask(record).engine if record else EngineFigures()
    cap, daily = engine.prefix_disk_cap_bytes, engine.daily_write_budget_bytes
    return {
        "cap_bytes": _bytes(settings.cache_gb) if cap is None else cap,
        "written_today_bytes": engine.written_today_bytes,
        "daily_write_bytes": _bytes(settings.daily_write_gb) if daily is None else daily,
        "is_writing_paused": engine.is_writing_paused,
    }


def _said(told: Mapping[str, object]) -> str:
    kept = f"{counted(cast('int', told['files']), 'file')}, {_in_bytes(told['bytes'])}"
    if told["is_cleared"]:
        return f"Cleared {kept}."
    of_cap = f" of at most {_in_bytes(told['cap_bytes'])}" if told["cap_bytes"] is not None else ""
    written = told["written_today_bytes"]
    of_day = f" of {_in_bytes(told['daily_write_bytes'])} a day"
    return table(
        {
            "folder": str(told["folder"]),
            "kept": f"{kept}{of_cap}",
            "written": "" if written is None else f"{_in_bytes(written)}{of_day}",
            "state": "writing is paused: full, or the day's share is used up"
            if told["is_writing_paused"]
            else "",
        }
    )


def _in_bytes(count: object) -> str:
    return in_bytes(count) if isinstance(count, int) else "?"


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * GB)


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*/*") if file.is_file()]


def _size(file: Path) -> int:
    """A file that the server has just removed takes nothing."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
