"""DoctorContext values for tests: a healthy Mac, changed as a test needs it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pensieve.daemon.health_client import Health
from pensieve.daemon.server_record import ServerRecord
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from pensieve.installation import Installation
from pensieve.machine import Machine
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings

MAC = Machine("Darwin", "arm64", "3.13.1", macos="26.1", memory_bytes=24 << 30)
LINUX = Machine("Linux", "x86_64", "3.13.1", memory_bytes=24 << 30, has_mlx_cpu=True)


def healthy_context(home: Path, machine: Machine = MAC, **settings: Any) -> DoctorContext:
    """No server runs and nothing is set but `settings`."""
    return DoctorContext(
        machine=machine,
        settings=Settings(under_home(home / "pensieve"), **settings),
        settings_error=None,
        environ={"PATH": "", "HOME": str(home)},
        home=home,
        working_folder=home / "work",
        record=None,
        health=None,
        installation=Installation(home / "python", checkout=home / "clone"),
    )


def with_variables(healthy: DoctorContext, **variables: str) -> DoctorContext:
    return replace(healthy, environ={**healthy.environ, **variables})


def with_server(healthy: DoctorContext, port: int, health: Health, pid: int = 1) -> DoctorContext:
    record = ServerRecord(pid, "start", "127.0.0.1", port, "tiny", "cpu", 0.0, "")
    return replace(healthy, record=record, health=health)


def of_topic(findings: list[Finding], topic: str) -> Finding:
    (match,) = [finding for finding in findings if finding.topic == topic]
    return match
