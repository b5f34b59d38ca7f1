"""What the last words of a worker, or of the whole Mac, mean and what helps: a table over strings that Metal, MLX and macOS write.

The strings are from the reports that each row names. The worker is replaced after every one of these by itself; a panic
ends the Mac.
"""

import re
from dataclasses import dataclass

from pensieve.doctor.finding import Level

# As logs.py writes it, to the minute.
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ ")


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to die. meaning, advice: for a person. fix: commands, one a line. source: where it was reported."""

    name: str
    pattern: re.Pattern[str]
    meaning: str
    advice: str
    fix: str
    source: str
    level: Level = "warning"


CAUSES: tuple[Cause, ...] = (
    Cause(
        "kernel panic",
        re.compile(r"prepare count underflow|IOGPU(Group)?Memory\.cpp:\d+"),
        "macOS itself panicked in its GPU driver (IOGPUFamily), a fault of macOS that long prompts and wired memory bring out",
        "Update macOS; leave memory unwired; give pensieve less memory",
        "softwareupdate --list\npensieve config unset wired",
        "ml-explore/mlx#3186, #3346; ml-explore/mlx-lm#883",
        "red",
    ),
    Cause(
        "watchdog",
        re.compile(r"Impacting ?Interactivity|0000000e:"),
        "macOS stopped the GPU's work because the screen had waited for it",
        "Take a smaller model, or have the driver wait longer (the screen may stutter)",
        "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1 pensieve restart",
        "jundot/omlx#1387; ml-explore/mlx#3267",
    ),
    Cause(
        "out of memory",
        re.compile(r"Insufficient Memory|00000008:|CallbackErrorOutOfMemory"),
        "the GPU ran out of memory",
        "Close large programs, or give pensieve less: the context becomes shorter, and it holds",
        "pensieve plan\npensieve config set memory_gb 8",
        "ml-explore/mlx#479, #3224; jundot/omlx#2079",
    ),
    Cause(
        "buffer too large",
        re.compile(r"Attempting to allocate \d+ bytes which is greater than the maximum"),
        "one array was larger than Metal allows",
        "The prompt was too long for this model on this machine: take one with a smaller KV cache",
        "pensieve models",
        "ml-explore/mlx: metal::malloc",
    ),
    Cause(
        "GPU timeout",
        re.compile(r"CallbackErrorTimeout|Caused GPU Timeout|00000002:|CallbackErrorHang|GPU Hang"),
        "the GPU did not answer in time",
        "If it comes again, restart the Mac; then take a smaller model",
        "pensieve restart",
        "ml-explore/mlx#3267",
    ),
    # After those above: it is what Metal says of everything that follows one of them.
    Cause(
        "GPU gave up",
        re.compile(r"SubmissionsIgnored|for causing prior/excessive GPU errors|00000004:"),
        "the GPU refused this process after an earlier error",
        "The worker was replaced; what went before it in the log is the cause",
        "pensieve restart",
        "jundot/omlx#3706",
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
        "crash loop",
        re.compile(r"again and again: not started any more"),
        "the worker died at every start, so that it is not started any more",
        "Compare the model's files with the published ones, and start anew",
        "pensieve stop && pensieve doctor --verify\npensieve start",
        "how pensieve logs it",
        "red",
    ),
)


def classify(text: str) -> Cause | None:
    """The cause that the last line which tells of one names; None where none does."""
    for line in reversed(text.splitlines()):
        for cause in CAUSES:
            if cause.pattern.search(line):
                return cause
    return None


def root_of(text: str) -> Cause | None:
    """The cause of the last trouble: behind "GPU gave up" and the ends that pensieve logs there may be a better one."""
    last = classify(text)
    if last is None or not last.name.startswith(("GPU gave up", "killed", "crash loop")):
        return last
    others = [cause for cause in CAUSES[:5] if cause.pattern.search(text)]
    return others[0] if others and last.name != "crash loop" else last


def moment_of(text: str, cause: Cause) -> str:
    """When the log says that it last came to this (UTC); empty where it does not say. A line of Metal's has no time of its own."""
    moment = last = ""
    for line in text.splitlines():
        if told := MOMENT.match(line):
            moment = f"{told[1]} {told[2]} UTC"
        if cause.pattern.search(line):
            last = moment
    return last
