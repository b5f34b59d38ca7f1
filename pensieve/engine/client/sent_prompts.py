"""Keeps what each of several engines was sent over restarts of the server: without it, requests
would not find the prefixes on the disks of their engines.

Hashes of blocks alone, in a private file for each engine. A killed server does not write it.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from pensieve.atomic_files import write_atomically
from pensieve.engine.client.prefix_table import HASH_BYTES, MAX_BLOCKS
from pensieve.engine.client.router import Replica
from pensieve.private_files import make_folder, read_private

_log = logging.getLogger("pensieve.engine")

_MAX_BYTES = MAX_BLOCKS * HASH_BYTES


@contextmanager
def remembering(replica: Replica, folder: Path | None) -> Generator[None]:
    """Restore what was sent to `replica` before; store it at the block's end. None: do neither."""
    if folder is None:
        yield
        return
    file = folder / f"sent-{quote(replica.name, safe='@')}"
    with suppress(OSError):
        replica.lost.load(read_private(file, _MAX_BYTES))
    try:
        yield
    finally:
        _store(replica, file)


def _store(replica: Replica, file: Path) -> None:
    replica.lost.load(replica.table.dump())
    try:
        make_folder(file.parent)
        write_atomically(file, replica.lost.dump(), is_durable=False)
    except OSError as error:
        _log.warning("storing what %s was sent failed, it begins cold: %s", replica.name, error)
