"""`pensieve cache`: shows the size and limits of the prompt cache on disk, or clears it."""

import shutil
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Literal, cast

from pensieve.cli.lifecycle.status_facts import table
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import counted, in_bytes
from pensieve.daemon.health_client import ask
from pensieve.daemon.server_record import current
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

GB = 10**9


def cache(what: Literal["show", "clear"] = "show", /, *, json: bool = False) -> int:
    """Show or clear the prompt cache on disk.

    For example:
      pensieve cache
      pensieve cache clear

    The cache saves processing a conversation again after a restart. Clearing it
    costs only that processing.

    Parameters
    ----------
    what
        show (the default) or clear.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    folder = settings.paths.prefixes
    files = _files(folder)
    used = sum(map(_size, files))
    if what == "clear":
        for model_folder in folder.glob("*"):
            shutil.rmtree(model_folder, ignore_errors=True)
    report = {
        "folder": str(folder),
        "files": len(files),
        "bytes": used,
        "is_cleared": what == "clear",
        **_limits(settings),
    }
    output.data(dumps(report, indent=2) if json else _as_text(report))
    return 0


def _limits(settings: Settings) -> dict[str, int | bool | None]:
    """Return the running engine's limits, else the settings'; None: the engine chooses at start."""
    record = current(settings.paths)
    engine = ask(record).engine if record else None
    return {
        "cap_bytes": engine.prefix_disk_cap_bytes if engine else _bytes(settings.cache_gb),
        "written_today_bytes": engine.written_today_bytes if engine else None,
        "daily_write_bytes": (
            engine.daily_write_budget_bytes if engine else _bytes(settings.daily_write_gb)
        ),
        "is_writing_paused": engine.is_writing_paused if engine else None,
    }


def _as_text(report: Mapping[str, object]) -> str:
    used = f"{counted(cast('int', report['files']), 'file')}, {_in_bytes(report['bytes'])}"
    if report["is_cleared"]:
        return f"Cleared {used}."
    cap = f" of at most {_in_bytes(report['cap_bytes'])}" if report["cap_bytes"] is not None else ""
    written = report["written_today_bytes"]
    per_day = f" of {_in_bytes(report['daily_write_bytes'])} a day"
    return table(
        {
            "folder": str(report["folder"]),
            "cached": f"{used}{cap}",
            "written": "" if written is None else f"{_in_bytes(written)}{per_day}",
            "state": "writing is paused: full, or the daily limit is reached"
            if report["is_writing_paused"]
            else "",
        }
    )


def _in_bytes(count: object) -> str:
    return in_bytes(count) if isinstance(count, int) else "?"


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * GB)


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # the server has just evicted it
        return 0
