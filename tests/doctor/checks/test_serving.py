"""Findings about port, server, probe and the last crash in the log."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.daemon.health_client import Health
from pensieve.doctor.checks.serving import check
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from pensieve.engine.generation import SpeculationState
from pensieve.errors import RecordUnreadableError
from pensieve.installation import Installation, Keg
from tests.cli.fake_server import FakeServer, message, refuse, serving
from tests.doctor.checks.test_crashes import MEMORY, PANIC, WATCHDOG
from tests.doctor.contexts import healthy_context, of_topic, with_server

READY = Health("ready", model="tiny")


def examined(context: DoctorContext) -> list[Finding]:
    return list(check(context, panics=context.home / "panics"))


def served(context: DoctorContext, server: FakeServer, health: Health = READY) -> DoctorContext:
    return with_server(context, server.server_port, health, pid=os.getpid())


def test_with_no_server_the_port_is_free_and_nothing_is_red(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    findings = examined(healthy_context(tmp_path, port=port))
    assert {finding.level for finding in findings} == {"ok"}
    assert [finding.topic for finding in findings] == ["port", "server", "log"]
    assert "pensieve start" in of_topic(findings, "server").text


def test_a_server_without_a_record_is_red_and_owns_its_port(tmp_path: Path) -> None:
    error = RecordUnreadableError("server.json", os.getpid(), is_missing=True)
    with socket.create_server(("127.0.0.1", 0)) as ours:
        context = healthy_context(tmp_path, port=ours.getsockname()[1])
        findings = examined(replace(context, lost_record=error))
    assert of_topic(findings, "port").text.endswith(f"is pensieve's (pid {os.getpid()})")
    finding = of_topic(findings, "server")
    assert (finding.level, finding.fix) == ("red", "pensieve restart")
    assert "its record is missing" in finding.text


def test_a_failed_service_is_restarted_by_homebrew(tmp_path: Path) -> None:
    with serving() as server:
        context = served(healthy_context(tmp_path), server, Health("failed", "weights are cursed"))
        assert context.record
        record = replace(context.record, service="homebrew.mxcl.pensieve")
        finding = of_topic(examined(replace(context, record=record)), "server")
    assert finding.fix == "brew services restart pensieve"


def test_a_taken_port_is_red_with_its_owner_and_another_port(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finding = of_topic(examined(healthy_context(tmp_path, port=port)), "port")
    assert finding.level == "red"
    assert f"pid {os.getpid()}" in finding.text
    assert finding.fix == f"pensieve start --port {port + 1}"


def test_a_running_server_is_probed_for_one_token(tmp_path: Path) -> None:
    with serving() as server:
        server.whole = {"type": "message", "content": []}
        findings = examined(served(healthy_context(tmp_path), server))
        ((headers, body),) = server.calls
    assert of_topic(findings, "port").text.endswith(f"is pensieve's (pid {os.getpid()})")
    assert body["max_tokens"] == 1
    assert headers["x-api-key"] == "pensieve-local-key"
    finding = of_topic(findings, "probe")
    assert finding.level == "ok"
    assert finding.text.startswith("one token in ")


def test_a_sleeping_model_is_not_probed(tmp_path: Path) -> None:
    with serving() as server:
        findings = examined(
            served(healthy_context(tmp_path), server, Health("asleep", model="tiny"))
        )
        assert server.calls == []
    assert "asleep" in of_topic(findings, "server").text
    finding = of_topic(findings, "probe")
    assert (finding.level, finding.text) == (
        "ok",
        'skipped, the model is asleep; to wake it: pensieve chat "Hello"',
    )


@pytest.mark.parametrize(
    ("status", "says"), [(401, "another key"), (529, "the model is cursed"), (500, "HTTP 500")]
)
def test_a_refused_probe_is_red(tmp_path: Path, status: int, says: str) -> None:
    with serving(refuse(status, "the model is cursed")) as server:
        finding = of_topic(examined(served(healthy_context(tmp_path), server)), "probe")
    assert finding.level == "red"
    assert says in finding.text
    assert finding.fix == "pensieve restart"


def test_an_ended_server_is_red(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    context = with_server(healthy_context(tmp_path), port, READY)
    finding = of_topic(examined(context), "probe")
    assert (finding.level, finding.text) == (
        "red",
        "no answer from the model: nothing listens there",
    )


@pytest.mark.parametrize(
    ("health", "level", "fix"),
    [
        (replace(READY, restarts=2), "warning", "pensieve logs -n 50"),
        (replace(READY, version="0.0.9"), "warning", "pensieve restart"),
        (replace(READY, status="asleep", restarts=2), "warning", "pensieve logs -n 50"),
        (replace(READY, poison_prompts=1), "warning", "pensieve logs -n 50"),
        (Health("loading", "reading the weights"), "warning", "pensieve status"),
        (Health("failed", "weights are cursed"), "red", "pensieve restart"),
        (Health("unreachable", "no answer"), "red", "pensieve restart"),
    ],
)
def test_an_unhealthy_server_is_reported_with_its_detail(
    tmp_path: Path, health: Health, level: str, fix: str
) -> None:
    with serving(message("x")) as server:
        finding = of_topic(examined(served(healthy_context(tmp_path), server, health)), "server")
    assert (finding.level, finding.fix) == (level, fix)
    assert health.detail in finding.text


def test_poison_prompts_are_counted(tmp_path: Path) -> None:
    with serving(message("x")) as server:
        context = served(healthy_context(tmp_path), server, replace(READY, poison_prompts=3))
        text = of_topic(examined(context), "server").text
    assert "refuses 3 prompt(s)" in text


def test_a_sleeping_server_is_healthy(tmp_path: Path) -> None:
    with serving() as server:
        server.whole = {"type": "message", "content": []}
        findings = examined(
            served(healthy_context(tmp_path), server, replace(READY, status="asleep"))
        )
    assert of_topic(findings, "server").level == "ok"
    assert "asleep until the next request" in of_topic(findings, "server").text
    assert of_topic(findings, "probe").level == "ok"


# log and panics


def logged(context: DoctorContext, text: str) -> Finding:
    context.settings.paths.logs.mkdir(parents=True, exist_ok=True)
    context.settings.paths.server_log.write_text(text, encoding="utf-8")
    return of_topic(examined(context), "log")


def test_the_last_crash_is_reported_with_advice(tmp_path: Path) -> None:
    finding = logged(
        healthy_context(tmp_path), f"2026-11-26T01:00:00Z INFO ready\n{MEMORY}\n{WATCHDOG}\n"
    )
    assert finding.level == "warning"
    assert "last crash (watchdog, 2026-11-26 01:00 UTC)" in finding.text
    assert "pensieve models" in finding.fix


def test_the_time_of_a_crash_is_read_from_a_log_in_json_too(tmp_path: Path) -> None:
    line = '{"time": "2026-11-26T01:00:00.250Z", "level": "INFO", "message": "ready"}'
    text = logged(healthy_context(tmp_path), f"{line}\n{WATCHDOG}\n").text
    assert "last crash (watchdog, 2026-11-26 01:00 UTC)" in text


def test_a_crash_of_the_homebrew_service_is_found_in_its_own_log(tmp_path: Path) -> None:
    keg = Keg(tmp_path / "homebrew", "pensieve")
    keg.log.parent.mkdir(parents=True)
    keg.log.write_text(f"2026-11-26T01:00:00Z INFO ready\n{WATCHDOG}\n", encoding="utf-8")
    finding = of_topic(
        examined(replace(healthy_context(tmp_path), installation=Installation(tmp_path, keg))),
        "log",
    )
    assert "last crash (watchdog" in finding.text


def test_only_the_running_servers_log_counts(tmp_path: Path) -> None:
    own = tmp_path / "service.log"
    own.write_text("2026-11-26T01:00:00Z INFO ready\n", encoding="utf-8")
    with serving(message("x")) as server:
        context = served(healthy_context(tmp_path), server)
        assert context.record
        context = replace(context, record=replace(context.record, log=str(own)))
        assert logged(context, MEMORY).level == "ok"
        own.write_text(f"{MEMORY}\n", encoding="utf-8")
        assert of_topic(examined(context), "log").level == "warning"


def test_an_old_crash_is_not_reported(tmp_path: Path) -> None:
    later = "2026-11-26T01:00:00Z INFO msg_1 POST /v1/messages: 200 in 0.4 s\n" * 8000
    assert logged(healthy_context(tmp_path), f"{MEMORY}\n{later}").level == "ok"
    assert logged(healthy_context(tmp_path), "\xff\0 nonsense\n").level == "ok"


def test_only_a_recent_panic_of_the_gpu_driver_is_red(tmp_path: Path) -> None:
    context = healthy_context(tmp_path)
    reports = tmp_path / "panics"
    reports.mkdir()
    (reports / "panic-full-1.panic").write_text('panic(cpu 1): "something else"')
    assert [finding.topic for finding in examined(context)] == ["port", "server", "log"]
    report = reports / "panic-full-2.panic"
    report.write_text(PANIC)
    finding = of_topic(examined(context), "panic")
    assert finding.level == "red"
    assert "Update macOS" in finding.text
    os.utime(report, (1e9, 1e9))
    assert [finding.topic for finding in examined(context)] == ["port", "server", "log"]


@pytest.mark.parametrize(
    ("state", "level", "text", "fix"),
    [
        (SpeculationState("pays", 32, 4.8), "ok", "likely tokens are verified together", ""),
        (SpeculationState("no_width_pays", 16, 14.1), "ok", "each step yields one token", ""),
        (SpeculationState("setting"), "ok", "off", "pensieve restart --speculation auto"),
        (SpeculationState("not_measured"), "warning", "not be timed", "pensieve restart"),
    ],
)
def test_the_servers_speculation_is_reported_with_its_reason(
    tmp_path: Path, state: SpeculationState, level: str, text: str, fix: str
) -> None:
    with serving() as server:
        health = Health("asleep", model="tiny", speculation=state)
        finding = of_topic(
            examined(served(healthy_context(tmp_path), server, health)), "speculation"
        )
    assert (finding.level, finding.fix) == (level, fix)
    assert text in finding.text
