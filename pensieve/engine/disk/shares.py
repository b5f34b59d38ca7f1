"""Divides the folder of stored prefixes among the workers of one machine.

Two writers in one folder would exceed its limits, and delete files that the other has indexed. So
the first worker has the folder itself, as if it were alone, and each other one a folder in it.
"""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from pensieve.private_files import make_folder

_NAME = re.compile(r"worker-([2-9]|1[0-9])")


def share(root: Path, number: int) -> Path:
    """Return the folder of worker `number`, counted from 1."""
    return root if number == 1 else root / f"worker-{number}"


def adopt_unused(root: Path, workers: int) -> None:
    """Move what workers have stored that no longer run to the first one, under its limits.

    Not while one of them runs. What cannot be moved is deleted: nothing would ever evict it.
    """
    used = {share(root, number) for number in range(1, workers + 1)}
    for folder in root.glob("worker-*"):
        if not _NAME.fullmatch(folder.name) or folder in used or folder.is_symlink():
            continue
        for file in folder.glob("*/*.kv"):
            with suppress(OSError):
                make_folder(root / file.parent.name)
                file.rename(root / file.parent.name / file.name)
        shutil.rmtree(folder, ignore_errors=True)
