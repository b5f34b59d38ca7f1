"""`pensieve doctor`: everything that can be wrong, looked at and told with its fix."""

import shutil
import textwrap
from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.doctor import bundle as bundling
from pensieve.doctor.checks import clients, hardware, python, serving, storage
from pensieve.doctor.context import DoctorContext, collect
from pensieve.doctor.finding import Finding, is_healthy, ok

MAX_COLUMNS = 100
MARGIN = 25
COLOURS = {"ok": output.GREEN, "warning": output.MAGENTA, "red": output.RED}
LABELS = {"ok": "ok", "warning": "warn", "red": "RED"}
LABEL_CHARS = 5


def doctor(
    *,
    verify: bool = False,
    bundle: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    json: bool = False,
) -> int:
    """Find out whether all is as it should be, and how to mend what is not.

    For example:
      pensieve doctor
      pensieve doctor --verify               # reads every byte of the model
      pensieve doctor --bundle report.tar.gz # for a bug report: no key, no prompt

    Looks at the machine, MLX, memory, settings, files, the model, the server (one
    token from it), and at what would keep Claude Code from it.
    Exit code 1: something is red.

    Parameters
    ----------
    verify
        Compare the model's files with their published hashes.
    bundle
        Write an archive for a bug report: findings, versions and log lines, without
        keys, prompts, names and paths of yours.
    json
        Print one JSON object instead.
    """
    patient = collect()
    findings: list[Finding] = []
    for finding in examined(patient, is_thorough=verify):
        findings.append(finding)
        if not json:
            output.labelled(rendered(finding), LABEL_CHARS, COLOURS[finding.level])
    if bundle:
        bundling.write(bundle, patient, findings)
        output.note(f"Written: {bundle}. Look into it before you send it: tar -xzf {bundle}")
    if json:
        output.data(dumps(_object(findings), indent=2))
    else:
        output.data(f"\n{conclusion(findings)}")
    return 0 if is_healthy(findings) else 1


def examined(patient: DoctorContext, *, is_thorough: bool) -> Iterator[Finding]:
    """Every finding, as it comes."""
    yield ok("pensieve", __version__)
    yield from python.check(patient)
    yield from hardware.check(patient)
    yield from storage.check(patient, is_thorough=is_thorough)
    yield from serving.check(patient)
    yield from clients.check(patient)


def rendered(finding: Finding) -> str:
    """Level, topic, words; below them the commands that mend it, whole."""
    label = f"{LABELS[finding.level]:<{LABEL_CHARS}}"
    width = min(shutil.get_terminal_size().columns, MAX_COLUMNS) - MARGIN
    text = textwrap.wrap(finding.text, width + 4, break_long_words=False, break_on_hyphens=False)
    indent = " " * (MARGIN - 4)
    first, *rest = text or [""]
    lines = [f"{label} {finding.topic:<{MARGIN - 11}} {first}", *(indent + line for line in rest)]
    fixes = [f"{indent}  {line}" for line in finding.fix.splitlines()]
    return "\n".join([*lines, *fixes])


def conclusion(findings: list[Finding]) -> str:
    """How it stands, in a line."""
    reds = sum(finding.level == "red" for finding in findings)
    looks = sum(finding.level == "warning" for finding in findings)
    if not reds and not looks:
        return "All is as it should be."
    parts = [
        f"{reds} {'thing is' if reds == 1 else 'things are'} red" if reds else "nothing is red",
        f"{looks} {'deserves' if looks == 1 else 'deserve'} a look" if looks else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f"{said[0].upper()}{said[1:]}. What mends it stands below each."


def _object(findings: list[Finding]) -> dict[str, object]:
    return {
        "version": __version__,
        "is_healthy": is_healthy(findings),
        "findings": [finding.as_json() for finding in findings],
    }
