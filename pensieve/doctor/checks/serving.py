"""The server: who has its port, how it is, whether it answers with a token, and what it last died of."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pensieve import __version__
from pensieve.daemon.bind import find_owner
from pensieve.daemon.health_client import MAX_BYTES, Health
from pensieve.daemon.server_record import ServerRecord
from pensieve.doctor.checks import crash_reports
from pensieve.doctor.checks.crashes import exception_of, timestamp_of
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.untrusted_json import read_json

PROBE_S = 120.0
LOG_BYTES = 1 << 18


def check(patient: DoctorContext, panics: Path = crash_reports.PANIC_FOLDER) -> Iterator[Finding]:
    """Port, server, probe, log, macOS's reports."""
    yield _port(patient)
    yield _server(patient)
    if patient.record and patient.health:
        yield from _probe(patient.record, patient.health, patient.settings.api_key)
    yield _log(patient)
    yield from crash_reports.check(patient.home, panics)


def _probe(record: ServerRecord, health: Health, api_key: str) -> Iterator[Finding]:
    """Ask a model that is loaded. One that sleeps would be loaded by that, and stay in memory."""
    if health.status == "asleep":
        yield ok("probe", 'not asked, the model is asleep; to wake it: pensieve chat "Hello"')
    elif health.is_well:
        yield probe(record, api_key)


def probe(record: ServerRecord, api_key: str, timeout_s: float = PROBE_S) -> Finding:
    """Ask the server for one token, as a client does."""
    body = {
        "model": record.model,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    began = time.monotonic()
    try:
        status, said = _post(record.base_url, api_key, body, timeout_s)
    except (OSError, HTTPException, ValueError) as error:
        return red(
            "probe", f"no answer from the model ({type(error).__name__})", "pensieve restart"
        )
    if status == 200:
        return ok("probe", f"one token in {time.monotonic() - began:.1f} s")
    if status == 401:
        text = "the server was started with another key than this shell has"
        return red("probe", text, "pensieve restart")
    return red(
        "probe", f"the model did not answer (HTTP {status}): {_message(said)}", "pensieve restart"
    )


def log_tail(logs: Iterable[Path]) -> str:
    """The ends of the servers' logs, in their order; empty where there is none."""
    return "".join(map(_tail, logs))


def _tail(log: Path) -> str:
    with suppress(OSError), log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")
    return ""


def _post(base_url: str, api_key: str, body: object, timeout_s: float) -> tuple[int, Any]:
    address = urlsplit(base_url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    with closing(connection):
        headers = {"content-type": "application/json", "x-api-key": api_key}
        connection.request("POST", "/v1/messages", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, read_json(response.read(MAX_BYTES))


def _message(said: Any) -> str:
    match said:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return "not from a pensieve server?"


def _port(patient: DoctorContext) -> Finding:
    port = patient.record.port if patient.record else patient.settings.port
    owner = find_owner(port)
    if owner is None:
        return ok("port", f"{port} is free")
    if patient.record and owner.pid == patient.record.pid:
        return ok("port", f"{port} is pensieve's (pid {owner.pid})")
    who = Path(owner.command[0]).name if owner.command else "a program"
    if owner.is_pensieve:
        who = "another pensieve, of another home or user"
    other = port + 1 if port < 65535 else port - 1
    return red(
        "port", f"{port} is taken by {who} (pid {owner.pid})", f"pensieve start --port {other}"
    )


def _server(patient: DoctorContext) -> Finding:
    record, health = patient.record, patient.health
    if record is None or health is None:
        return ok("server", "not running; to start it: pensieve start")
    where = f"pid {record.pid}, {record.base_url}"
    match health.status:
        case "ready" | "asleep":
            return _well(record, health, where)
        case "loading":
            return warning("server", f"not ready yet ({where}): {health.detail}", "pensieve status")
        case "failed" | "unreachable":
            return red("server", f"{health.status} ({where}): {health.detail}", "pensieve restart")


def _well(record: ServerRecord, health: Health, where: str) -> Finding:
    text = f"serves {health.model} ({where})"
    if health.status == "asleep":
        text += ", asleep until the next request"
    if health.restarts:
        text += f"; its worker was replaced {health.restarts} times"
    if health.poison_prompts:
        text += (
            f"; it refuses {health.poison_prompts} prompt(s), since its worker ended at least twice"
            " on each: most likely they need more memory than there is"
        )
    if health.restarts or health.poison_prompts:
        return warning("server", text, "pensieve logs -n 50")
    if health.version not in {"", __version__}:
        fix = "brew services restart pensieve" if record.service else "pensieve restart"
        return warning("server", f"{text}; it is {health.version}, this is {__version__}", fix)
    return ok("server", text)


def _log(patient: DoctorContext) -> Finding:
    if not (text := log_tail(patient.logs)):
        return ok("log", "nothing is logged yet")
    if (cause := exception_of(text)) is None:
        return ok("log", "no crash in the last part of the server's log")
    when = f", {moment}" if (moment := timestamp_of(text, cause)) else ""
    told = f"last crash ({cause.name}{when}): {cause.meaning}. {cause.advice}"
    return Finding("log", cause.level, told, cause.fix)
