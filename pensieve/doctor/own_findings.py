"""What a running server finds wrong with its own machine, for `GET /activity/history`.

Of doctor's checks only those that use no network, ask no server and start no program.
"""

from collections.abc import Iterator

from pensieve.doctor.checks import crash_reports, python, serving, storage
from pensieve.doctor.context import DoctorContext, context_within_server
from pensieve.doctor.finding import Finding
from pensieve.settings.resolve import Settings

_SEVERITIES = {"warning": "warning", "red": "error"}


def own_findings(settings: Settings) -> list[dict[str, str]]:
    """Return what is not in order. Reads files for some hundred milliseconds."""
    return [
        {
            "severity": _SEVERITIES[finding.level],
            "title": finding.topic,
            "explanation": finding.text,
            "fix": finding.fix,
        }
        for finding in _checks(context_within_server(settings))
        if finding.level != "ok"
    ]


def _checks(context: DoctorContext) -> Iterator[Finding]:
    yield from python.check(context)
    yield from storage.check(context)
    yield serving.check_log(context)
    yield from crash_reports.check(context.home)
