"""Logging of the foreground server, set up once: one line per event on standard error.

Whatever a client or a model can put into a message (CR, LF, escapes, NUL) is written escaped, so that it neither
forges a line nor talks to the terminal. Knows no HTTP and rotates nothing.
"""

import logging
import re
import sys
import time
from typing import TextIO

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def set_up(*, is_debug: bool, stream: TextIO | None = None) -> None:
    """pensieve's own lines from INFO (DEBUG where asked for), libraries' from WARNING. Calling it again replaces it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pensieve").setLevel(logging.DEBUG if is_debug else logging.INFO)
    logging.captureWarnings(capture=True)


class OneLine(logging.Formatter):
    """`2026-01-31T10:20:30Z level message`, with its traceback if there is one, on one line."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record))


def escape(text: str) -> str:
    r"""`text` with every control character as \n, \r, \t or \xNN."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
