"""How long open answers may go on once the server is told to end: no longer than launchd waits before it kills.

Asks launchctl(1) on a Mac whose launchd keeps the server; knows no HTTP.
"""

import os
import re
import subprocess
from collections.abc import Callable, Sequence

GRACE_S = 15
# For the last words of answers that were cut, and for the engine to end.
MARGIN_S = 2
# launchd's "system-defined" timeout: every `launchctl print` found says 5 (six projects, macOS 15 and 26, 2025 and 2026). Where
# the formula's `stop_timeout` is known to launchd, it says that.
LAUNCHD_TIMEOUT_S = 5
# One tab deep: what is nested deeper is of something else.
_EXIT_TIMEOUT = re.compile(r"^\texit timeout = (\d+)$", re.MULTILINE)

# Runs launchctl with these arguments; what it says, empty where it fails.
Launchctl = Callable[[Sequence[str]], str]


def grace_s(service: str, launchctl: Launchctl | None = None) -> int:
    """Return the seconds for open answers. service: launchd's name for this process, empty where it is none of its services."""
    if not service:
        return GRACE_S
    printed = ((launchctl or _launchctl)(["print", f"{domain}/{service}"]) for domain in _domains())
    timeouts = (timeout for text in printed if (timeout := exit_timeout_s(text)) is not None)
    timeout_s = next(timeouts, LAUNCHD_TIMEOUT_S)
    # 0 is launchd's word for "for as long as it takes".
    return max(1, min(GRACE_S, timeout_s - MARGIN_S)) if timeout_s else GRACE_S


def exit_timeout_s(printed: str) -> int | None:
    """Return the timeout that `launchctl print` tells of; None where it does not."""
    found = _EXIT_TIMEOUT.search(printed)
    return int(found[1]) if found else None


def _domains() -> Sequence[str]:
    user = os.getuid()
    return ("system",) if user == 0 else (f"gui/{user}", f"user/{user}")


def _launchctl(arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed program, our own service's name
            ["/bin/launchctl", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
