"""Check macOS's own reports of this week: Pythons that crashed in Metal, and panics."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pensieve.doctor.checks.crashes import PANICS, exception_of
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.untrusted_json import read_json

# Crashes of programs are reported in the user's home, panics in the machine's library.
CRASH_FOLDER = Path("Library/Logs/DiagnosticReports")
PANIC_FOLDER = Path("/Library/Logs/DiagnosticReports")
RECENT_S = 7 * 86400
# Metal reports errors on this thread, where MLX's exception can only abort.
METAL_QUEUE = "com.Metal.CompletionQueueDispatch"

# List the files of a folder. Raises OSError.
ListFolder = Callable[[Path], Iterable[Path]]


def check(
    home: Path, panic_folder: Path = PANIC_FOLDER, list_folder: ListFolder = Path.iterdir
) -> Iterator[Finding]:
    """Yield the newest crash in Metal, and the newest panic with a known cause."""
    with suppress(OSError):
        reports = _recent(home / CRASH_FOLDER, "[Pp]ython*.ips", list_folder)
        yield from _first(map(_crash, reports))
    try:
        yield from _first(map(_panic, _recent(panic_folder, "*.panic", list_folder)))
    except PermissionError:
        text = f"only administrators can read reports of panics: sudo ls {panic_folder}"
        yield ok("panic", text)
    except OSError:
        return


def _crash(report: Path) -> Finding | None:
    """Parse a report: one line of JSON about the report, then a JSON object about the process."""
    try:
        body: Any = read_json(_text(report).partition("\n")[2])
        thread = body["threads"][body["faultingThread"]]
        messages = "\n".join(line for lines in body.get("asi", {}).values() for line in lines)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if METAL_QUEUE not in {thread.get("queue"), thread.get("name")}:
        return None
    text = (
        f"{report.name}: an error of the GPU ended a Python program, most likely the engine worker"
    )
    if cause := exception_of(messages):
        return warning("crash report", f"{text}: {cause.meaning}. {cause.advice}", cause.fix)
    return warning("crash report", text, "pensieve logs -n 200")


def _panic(report: Path) -> Finding | None:
    cause = exception_of(_text(report))
    if cause is None or cause.name not in PANICS:
        return None
    return red("panic", f"{report.name}: {cause.meaning}. {cause.advice}", cause.fix)


def _recent(folder: Path, pattern: str, list_folder: ListFolder) -> list[Path]:
    """Return this week's reports, the newest first."""
    reports = [report for report in list_folder(folder) if fnmatch(report.name, pattern)]
    modified_at = {report: report.stat().st_mtime for report in reports}
    recent = [report for report in reports if time.time() - modified_at[report] < RECENT_S]
    return sorted(recent, key=lambda report: modified_at[report], reverse=True)


def _first(findings: Iterable[Finding | None]) -> Iterator[Finding]:
    yield from filter(None, [next(filter(None, findings), None)])


def _text(report: Path) -> str:
    return report.read_text("utf-8", "replace")
