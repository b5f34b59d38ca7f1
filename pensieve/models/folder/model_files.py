"""Read the files of a model folder, which any author may have written. All such reads go through
here.

Only regular files are read, and only up to the size of published ones: a device or a pipe could
never end, and parsing takes many times a file's size. Knows no model.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

from pensieve.untrusted_json import read_object

# A published tokenizer.json has up to 35 MB, the index of 160 files 9 MB; others far below 1 MB.
MAX_BYTES = 8 * 2**20
MAX_BYTES_OF = {"tokenizer.json": 128 * 2**20, "model.safetensors.index.json": 64 * 2**20}
# A safetensors file begins with the length of its header, a JSON object. The format allows 100 MB;
# a file of 100 000 tensors has 15.
MAX_HEADER_BYTES = 32 * 2**20


def read_file(file: Path) -> bytes:
    """Raises OSError, also for a file that is not regular or larger than such files are."""
    max_bytes = MAX_BYTES_OF.get(file.name, MAX_BYTES)
    content = start_of(file, max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes // 2**20} MiB")
    return content


def read_text(file: Path) -> str:
    """Raises OSError like `read_file`, and ValueError for text that is not UTF-8."""
    return read_file(file).decode("utf-8")


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header and the offset of its tensors.

    Raises OSError like `read_file`, and ValueError for an invalid header.
    """
    length = int.from_bytes(start_of(file, 8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError("no header of a plausible length")
    return read_object(start_of(file, 8 + length)[8:]), 8 + length


def start_of(file: Path, nbytes: int) -> bytes:
    """Return the first bytes of a regular file. Raises OSError."""
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(opened, "rb") as content:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return content.read(nbytes)
