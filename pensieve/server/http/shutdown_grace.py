"""How long open answers may continue after a stop: less than launchd's kill timeout.

Asks launchctl(1) on a Mac whose launchd runs the server; knows no HTTP.
"""

import os
import re
import subprocess
from collections.abc import Callable, Sequence

GRACE_S = 15
# For the final events of canceled answers, and for the engine to write its last prefixes and end.
MARGIN_S = 3
# launchd's "system-defined" timeout: every `launchctl print` found says 5 (six projects, macOS 15
# and 26, 2025 and 2026). If launchd knows the formula's `stop_timeout`, it prints that.
LAUNCHD_TIMEOUT_S = 5
# Indented by one tab; deeper lines belong to nested entries.
_EXIT_TIMEOUT = re.compile(r"^\texit timeout = (\d+)$", re.MULTILINE)

# Runs launchctl with these arguments and returns its output, empty on failure.
Launchctl = Callable[[Sequence[str]], str]


def grace_s(service: str, launchctl: Launchctl | None = None) -> int:
    """Return the seconds for open answers.

    `service` is launchd's name for this process, or empty.
    """
    if not service:
        return GRACE_S
    printed = ((launchctl or _launchctl)(["print", f"{domain}/{service}"]) for domain in _domains())
    timeouts = (timeout for text in printed if (timeout := exit_timeout_s(text)) is not None)
    timeout_s = next(timeouts, LAUNCHD_TIMEOUT_S)
    # launchd prints 0 for "no timeout".
    return max(1, min(GRACE_S, timeout_s - MARGIN_S)) if timeout_s else GRACE_S


def exit_timeout_s(printed: str) -> int | None:
    """Return the exit timeout in the output of `launchctl print`, or None."""
    match = _EXIT_TIMEOUT.search(printed)
    return int(match[1]) if match else None


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
