"""Check the server: port owner, state, a one-token probe, and the last crash in its log."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pensieve import __version__
from pensieve.daemon.bind import find_owner
from pensieve.daemon.health_client import MAX_BYTES, Health, reason_of
from pensieve.daemon.http_connection import http_connection
from pensieve.daemon.server_record import ServerRecord, restart_command
from pensieve.doctor.checks import crash_reports
from pensieve.doctor.checks.crashes import exception_of, timestamp_of
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.untrusted_json import read_json

PROBE_TIMEOUT_S = 120.0
LOG_BYTES = 1 << 18


def check(context: DoctorContext, panics: Path = crash_reports.PANIC_FOLDER) -> Iterator[Finding]:
    """Check port, server, speculation, probe, log and macOS's reports."""
    yield _port(context)
    yield _server(context)
    yield from _speculation(context)
    if context.record and context.health:
        yield from _probe(context.record, context.health, context.settings.api_key)
    yield check_log(context)
    yield from crash_reports.check(context.home, panics)


def _probe(record: ServerRecord, health: Health, api_key: str) -> Iterator[Finding]:
    """Probe only a loaded model: the probe would load a sleeping one, which then stays in
    memory.
    """
    if health.status == "asleep":
        yield ok("probe", 'skipped, the model is asleep; to wake it: pensieve chat "Hello"')
    elif health.is_well:
        yield probe(record, api_key)


def probe(record: ServerRecord, api_key: str, timeout_s: float = PROBE_TIMEOUT_S) -> Finding:
    """Request one token like a client."""
    body = {
        "model": record.model,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    began = time.monotonic()
    try:
        status, answer = _post(record, api_key, body, timeout_s)
    except (OSError, HTTPException, ValueError) as error:
        return red(
            "probe", f"no answer from the model: {reason_of(error)}", restart_command(record)
        )
    if status == 200:
        return ok("probe", f"one token in {time.monotonic() - began:.1f} s")
    if status == 401:
        text = "the server was started with another key than this shell has"
        return red("probe", text, restart_command(record))
    return red(
        "probe",
        f"the model did not answer (HTTP {status}): {_message(answer)}",
        restart_command(record),
    )


def log_tail(logs: Iterable[Path]) -> str:
    """Return the ends of the servers' logs, concatenated in order."""
    return "".join(map(_tail, logs))


def _tail(log: Path) -> str:
    with suppress(OSError), log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")
    return ""


def _post(record: ServerRecord, api_key: str, body: object, timeout_s: float) -> tuple[int, Any]:
    with closing(http_connection(record.direct_url, record.trust, timeout_s)) as connection:
        headers = {"content-type": "application/json", "x-api-key": api_key}
        connection.request("POST", "/v1/messages", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, read_json(response.read(MAX_BYTES))


def _message(body: Any) -> str:
    match body:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return "not from a pensieve server?"


def _port(context: DoctorContext) -> Finding:
    port = context.record.port if context.record else context.settings.port
    owner = find_owner(port)
    if owner is None:
        return ok("port", f"{port} is free")
    if owner.pid == context.server_pid:
        return ok("port", f"{port} is pensieve's (pid {owner.pid})")
    name = Path(owner.command[0]).name if owner.command else "a program"
    if owner.is_pensieve:
        name = "another pensieve, of another home or user"
    other = port + 1 if port < 65535 else port - 1
    return red(
        "port", f"{port} is taken by {name} (pid {owner.pid})", f"pensieve start --port {other}"
    )


def _server(context: DoctorContext) -> Finding:
    record, health = context.record, context.health
    if context.lost_record:
        return red("server", context.lost_record.message, "pensieve restart")
    if record is None or health is None:
        return ok("server", "not running; to start it: pensieve start")
    where = f"pid {record.pid}, {record.base_url}"
    match health.status:
        case "ready" | "asleep":
            return _well(record, health, where)
        case "loading":
            return warning("server", f"not ready yet ({where}): {health.detail}", "pensieve status")
        case "failed" | "unreachable":
            return red(
                "server", f"{health.status} ({where}): {health.detail}", restart_command(record)
            )


def _well(record: ServerRecord, health: Health, where: str) -> Finding:
    text = f"serves {health.model} ({where})"
    if health.status == "asleep":
        text += ", asleep until the next request"
    if health.restarts:
        text += f"; its worker was restarted {health.restarts} times"
    if health.poison_prompts:
        text += (
            f"; it refuses {health.poison_prompts} prompt(s), because its worker ended at least"
            " twice on each: most likely they need more memory than there is"
        )
    if health.restarts or health.poison_prompts:
        return warning("server", text, "pensieve logs -n 50")
    if health.version not in {"", __version__}:
        text += f"; it is {health.version}, this is {__version__}"
        return warning("server", text, restart_command(record))
    return ok("server", text)


def _speculation(context: DoctorContext) -> Iterator[Finding]:
    """Report whether the running server's steps verify drafts, and why not."""
    state = context.health.speculation if context.record and context.health else None
    if state is None:
        return
    if state.is_on:
        yield ok("speculation", f"{state.text}, so likely tokens are verified together")
        return
    fix = state.fix(is_service=bool(context.record and context.record.service))
    level = "warning" if state.reason == "not_measured" else "ok"
    text = f"{state.text}; each step yields one token, the answers are the same"
    yield Finding("speculation", level, text, fix)


def check_log(context: DoctorContext) -> Finding:
    if not (text := log_tail(context.logs)):
        return ok("log", "nothing is logged yet")
    if (cause := exception_of(text)) is None:
        return ok("log", "no crash in the last part of the server's log")
    when = f", {timestamp}" if (timestamp := timestamp_of(text, cause)) else ""
    text = f"last crash ({cause.name}{when}): {cause.meaning}. {cause.advice}"
    return Finding("log", cause.level, text, cause.fix)
