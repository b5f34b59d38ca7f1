"""The decoding process: reads one file from standard input, writes what it has to standard output.

decoder.py starts it, and another one for the next file. A result is one line of JSON; the pixels of
a picture follow it.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from pensieve.media.confinement import Limits, close_doors, limit_work
from pensieve.media.outcome import Picture, Refusal, RefusedError
from pensieve.media.picture_size import PictureBounds

Decode = Callable[[bytes], tuple[dict[str, object], bytes]]


def main(limits: Limits = Limits()) -> None:  # noqa: B008 -- it is frozen
    limit_work(limits)
    warnings.simplefilter("ignore")
    fields, pixels = _result(sys.stdin.buffer.read(), sys.argv[1:])
    sys.stdout.buffer.write(json.dumps(fields).encode() + b"\n" + pixels)
    sys.stdout.buffer.flush()
    # The library's own cleaning up could crash.
    os._exit(0)


def _result(content: bytes, job: Sequence[str]) -> tuple[dict[str, object], bytes]:
    try:
        decode = _decoder_of(job)
    except (ImportError, OSError):
        return {"refusal": Refusal.NO_LIBRARY}, b""
    close_doors()
    try:
        return decode(content)
    except RefusedError as error:
        return {"refusal": error.refusal}, b""


def _decoder_of(job: Sequence[str]) -> Decode:
    """Import what decodes files of the job's kind. Raises ImportError and OSError."""
    match job:
        case ["picture", unit, min_pixels, max_pixels]:
            from pensieve.media.pictures import picture_of

            bounds = PictureBounds(int(unit), int(min_pixels), int(max_pixels))
            return lambda content: _written(picture_of(content, bounds))
        case ["page", index, width, height]:
            from pensieve.media.pdf import page_picture

            size = int(width), int(height)
            return lambda content: _written(page_picture(content, int(index), *size))
        case ["sizes"]:
            from pensieve.media.pdf import page_sizes

            return lambda content: ({"sizes": page_sizes(content)}, b"")
        case _:
            from pensieve.media.pdf import page_texts

            return lambda content: ({"pages": page_texts(content)}, b"")


def _written(picture: Picture) -> tuple[dict[str, object], bytes]:
    return {"width": picture.width, "height": picture.height}, picture.pixels


if __name__ == "__main__":
    main()
