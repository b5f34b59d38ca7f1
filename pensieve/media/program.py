"""The decoding process: reads one file from standard input, writes what it has to standard output.

decoder.py starts it, and another one for the next file. A result is one line of JSON.
"""

import json
import os
import sys
import warnings

from pensieve.media.confinement import Limits, close_doors, limit_work
from pensieve.media.outcome import Refusal, RefusedError


def main(limits: Limits = Limits()) -> None:  # noqa: B008 -- it is frozen
    limit_work(limits)
    warnings.simplefilter("ignore")
    result = _result(sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(result).encode() + b"\n")
    sys.stdout.buffer.flush()
    # The library's own cleaning up could crash.
    os._exit(0)


def _result(content: bytes) -> dict[str, object]:
    try:
        from pensieve.media.pdf import page_texts
    except (ImportError, OSError):
        return {"refusal": Refusal.NO_LIBRARY}
    close_doors()
    try:
        return {"pages": page_texts(content)}
    except RefusedError as error:
        return {"refusal": error.refusal}


if __name__ == "__main__":
    main()
