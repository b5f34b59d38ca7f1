"""`pensieve doctor`: runs all checks and prints each finding with its fix."""

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
from pensieve.doctor.checks import (
    agents,
    clients,
    hardware,
    hosts,
    python,
    serving,
    storage,
)
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
    """Diagnose problems, and show the command that fixes each.

    For example:
      pensieve doctor
      pensieve doctor --verify               # also hash the model's files
      pensieve doctor --bundle report.tar.gz # for a bug report

    Checks the machine, MLX, memory, settings, files, the model, the server (by
    generating one token), and what would keep Claude Code and others from it.
    Exit code 1: a finding is red.

    Parameters
    ----------
    verify
        Compare the model's files with their published hashes.
    bundle
        Write an archive for a bug report: findings, versions and log lines, without
        your keys, prompts and names. Your home folder is written as ~.
    json
        Print one JSON object instead.
    """
    context = collect()
    findings: list[Finding] = []
    for finding in run_checks(context, is_thorough=verify):
        findings.append(finding)
        if not json:
            output.labelled(format_finding(finding), LABEL_CHARS, COLOURS[finding.level])
    if bundle:
        bundling.write(bundle, context, findings)
        output.note(f"Written: {bundle}. Check it before you send it: tar -xzf {bundle}")
    if json:
        output.data(dumps(_as_json(findings), indent=2))
    else:
        output.data(f"\n{summary_line(findings)}")
    return 0 if is_healthy(findings) else 1


def run_checks(context: DoctorContext, *, is_thorough: bool) -> Iterator[Finding]:
    """Yield every finding as soon as its check is done."""
    yield ok("pensieve", __version__)
    yield from python.check(context)
    yield from hardware.check(context)
    yield from storage.check(context, is_thorough=is_thorough)
    yield from serving.check(context)
    yield from hosts.check(context)
    yield from clients.check(context)
    yield from agents.check(context)


def format_finding(finding: Finding) -> str:
    """Return level, topic and text; the commands that fix it follow, unwrapped."""
    label = f"{LABELS[finding.level]:<{LABEL_CHARS}}"
    width = min(shutil.get_terminal_size().columns, MAX_COLUMNS) - MARGIN
    text = textwrap.wrap(finding.text, width + 4, break_long_words=False, break_on_hyphens=False)
    indent = " " * (MARGIN - 4)
    first, *rest = text or [""]
    lines = [f"{label} {finding.topic:<{MARGIN - 11}} {first}", *(indent + line for line in rest)]
    fixes = [f"{indent}  {line}" for line in finding.fix.splitlines()]
    return "\n".join([*lines, *fixes])


def summary_line(findings: list[Finding]) -> str:
    reds = sum(finding.level == "red" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if not reds and not warnings:
        return "No problems found."
    parts = [
        f"{reds} {'problem' if reds == 1 else 'problems'}" if reds else "no problems",
        f"{warnings} {'warning' if warnings == 1 else 'warnings'}" if warnings else "",
    ]
    counts = ", ".join(part for part in parts if part)
    return f"{counts[0].upper()}{counts[1:]}. The fix follows each finding."


def _as_json(findings: list[Finding]) -> dict[str, object]:
    return {
        "version": __version__,
        "is_healthy": is_healthy(findings),
        "findings": [finding.as_json() for finding in findings],
    }
