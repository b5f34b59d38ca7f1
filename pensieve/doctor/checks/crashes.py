"""Causes of crashes of the worker or the Mac: a table of strings that Metal, MLX and macOS log.

The strings are from the reports that each row names. After all of these the worker is restarted
automatically; a panic restarts the Mac.
"""

import re
from dataclasses import dataclass

from pensieve.doctor.finding import Level

# The timestamp of logs.py, to the minute, in both of its formats.
TIMESTAMP = re.compile(r'(?:\{"time": ")?(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:Z |\.\d+Z")')


@dataclass(frozen=True, slots=True)
class Cause:
    name: str
    pattern: re.Pattern[str]
    meaning: str  # for people
    advice: str  # for people
    fix: str  # commands, one per line
    source: str  # where it was reported
    level: Level = "warning"


CAUSES: tuple[Cause, ...] = (
    Cause(
        "kernel panic",
        re.compile(r"prepare count underflow|IOGPU(Group)?Memory\.cpp:\d+"),
        "macOS panicked in its GPU driver (IOGPUFamily), a fault of macOS that long prompts and"
        " wired memory trigger",
        "Update macOS; leave memory unwired; give pensieve less memory",
        "softwareupdate --list\npensieve config unset wired",
        "ml-explore/mlx#3186, #3346; ml-explore/mlx-lm#883",
        "red",
    ),
    Cause(
        "system watchdog",
        re.compile(r"no checkins from watchdogd"),
        "macOS restarted the Mac, which had not answered for 90 s: most often memory had run out,"
        " and all of it was in use or wired",
        "Leave memory unwired; give pensieve less memory",
        "pensieve config unset wired\npensieve config set memory_gb 8",
        "ml-explore/mlx#3186; panics of 2026 in public reports: 92 to 95 seconds",
        "red",
    ),
    Cause(
        "watchdog",
        re.compile(r"Impacting ?Interactivity|0000000e:"),
        "macOS stopped the GPU's work because the screen had waited for it",
        "Update macOS. If it happens again, use a smaller model: the driver's limit is raised"
        " already",
        "softwareupdate --list\npensieve models",
        "jundot/omlx#1387; ml-explore/mlx#3267",
    ),
    Cause(
        "out of memory",
        re.compile(r"Insufficient Memory|00000008:|CallbackErrorOutOfMemory"),
        "the GPU ran out of memory",
        "Close large programs, or give pensieve less: the context becomes shorter but reliable",
        "pensieve plan\npensieve config set memory_gb 8",
        "ml-explore/mlx#479, #3224; jundot/omlx#2079",
    ),
    Cause(
        "buffer too large",
        re.compile(r"Attempting to allocate \d+ bytes which is greater than the maximum"),
        "one array was larger than Metal allows",
        "The prompt was too long for this model on this machine: use one with a smaller KV cache",
        "pensieve models",
        "ml-explore/mlx: metal::malloc",
    ),
    Cause(
        "too many buffers",
        re.compile(r"\[metal::malloc\] Resource limit \(\d+\) exceeded"),
        "the worker held more Metal buffers than macOS allows at once",
        "The worker was restarted; if it happens again, use another model and report this log",
        "pensieve models\npensieve doctor --bundle",
        "ml-explore/mlx: metal::malloc; mlx-lm's caches in 2026 at 499000 buffers",
    ),
    Cause(
        "no memory",
        re.compile(r"\[malloc\] Unable to allocate \d+ bytes"),
        "the system had no memory left for one array",
        "Close large programs, or give pensieve less memory",
        "pensieve plan\npensieve config set memory_gb 8",
        "ml-explore/mlx: malloc",
    ),
    Cause(
        "missing kernels",
        re.compile(
            r"Unable to load (kernel|function)|Failed to load the (default )?metallib"
            r"|Unable to build metal library"
        ),
        "MLX's Metal kernels do not fit this macOS, or are missing (known for macOS 26.0 and 26.1"
        " on an M5)",
        "Update macOS, then reinstall pensieve: it gets the build of MLX that fits",
        "softwareupdate --list\nbrew reinstall pensieve",
        "ml-explore/mlx#4525",
        "red",
    ),
    Cause(
        "GPU timeout",
        re.compile(r"CallbackErrorTimeout|Caused GPU Timeout|00000002:|CallbackErrorHang|GPU Hang"),
        "the GPU did not answer in time",
        "If it happens again, restart the Mac; then use a smaller model",
        "pensieve restart",
        "ml-explore/mlx#3267",
    ),
    # After those above: Metal reports this for everything that follows one of them.
    Cause(
        "GPU gave up",
        re.compile(r"SubmissionsIgnored|for causing prior/excessive GPU errors|00000004:"),
        "the GPU refused this process after an earlier error",
        "The worker was restarted; the lines before it in the log show the cause",
        "pensieve restart",
        "jundot/omlx#3706",
    ),
    Cause(
        "aborted",
        re.compile(r"The engine worker ended by itself \((exit code 6|signal 6)\)"),
        "MLX or the GPU's driver aborted the worker",
        "The worker was restarted; the lines before it in the log show the cause",
        "pensieve logs -n 200",
        "how pensieve logs an abort",
    ),
    Cause(
        "killed",
        re.compile(r"The engine worker ended by itself \(signal 9\)"),
        "the system ended the worker, most often since memory had run out",
        "Close large programs, or give pensieve less memory",
        "pensieve plan\npensieve config set memory_gb 8",
        "how pensieve logs a SIGKILL",
    ),
    Cause(
        "hung",
        re.compile(r"The engine worker hung: nothing came for \d+ s while"),
        "the worker made no progress for longer than any step takes on a Mac, and was restarted",
        "If it happens again, restart the Mac; then report it with doctor's bundle",
        "pensieve doctor --bundle report.tar.gz",
        "how pensieve logs a worker that it ended",
    ),
    Cause(
        "crash loop",
        re.compile(r"again and again: not started any more"),
        "the worker died at every start and is not restarted any more",
        "Compare the model's files with the published ones, and start again",
        "pensieve stop && pensieve doctor --verify\npensieve start",
        "how pensieve logs it",
        "red",
    ),
)


# The log may show a more specific cause before these.
CONSEQUENCES = frozenset({"GPU gave up", "aborted", "killed"})
# macOS writes a panic report for these.
PANICS = frozenset({"kernel panic", "system watchdog"})


def classify(text: str) -> Cause | None:
    """Return the cause in the last line that shows one; None without one."""
    for line in reversed(text.splitlines()):
        for cause in CAUSES:
            if cause.pattern.search(line):
                return cause
    return None


def exception_of(text: str) -> Cause | None:
    """Return the cause of the last crash, preferring a specific one over its `CONSEQUENCES`."""
    last = classify(text)
    if last is None or last.name not in CONSEQUENCES:
        return last
    others = (cause for cause in CAUSES if cause.name not in {*CONSEQUENCES, "crash loop"})
    return next((cause for cause in others if cause.pattern.search(text)), last)


def timestamp_of(text: str, cause: Cause) -> str:
    """Return the time (UTC) of the last line with this cause; empty if unknown. Metal's lines
    have no timestamp, so the preceding line's counts.
    """
    timestamp = last = ""
    for line in text.splitlines():
        if match := TIMESTAMP.match(line):
            timestamp = f"{match[1]} {match[2]} UTC"
        if cause.pattern.search(line):
            last = timestamp
    return last
