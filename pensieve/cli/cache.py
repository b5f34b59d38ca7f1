"""`pensieve cache`: what the prefixes on disk take, and how they are given up."""

import shutil
from pathlib import Path
from typing import Literal

from pensieve import settings as settings_module
from pensieve.cli import output

MB = 10**6


def cache(what: Literal["show", "clear"] = "show", /) -> int:
    """Show the prompts kept on disk, or clear them.

    For example:
      pensieve cache
      pensieve cache clear

    They let a conversation go on after a restart without being processed again.
    Cleared, the next turn is processed anew; nothing else is lost.
    """
    folder = settings_module.resolve().paths.prefixes
    files = _files(folder)
    total = f"{len(files)} files, {sum(map(_size, files)) / MB:,.1f} MB"
    if what == "clear":
        for model_folder in folder.glob("*"):
            shutil.rmtree(model_folder, ignore_errors=True)
        output.data(f"Cleared {total}.")
        return 0
    output.data(f"folder  {folder}")
    output.data(f"kept    {total}")
    return 0


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*/*") if file.is_file()]


def _size(file: Path) -> int:
    """A file that the server has just removed takes nothing."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
