"""Findings about other machines that run the model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pensieve import __version__
from pensieve.daemon.health_client import Health
from pensieve.doctor.checks.hosts import check
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red
from pensieve.errors import ProgramMissingError
from pensieve.hosts.check import HostReport
from pensieve.hosts.greeting import Answer
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.settings.resolve import Settings
from tests.doctor.contexts import healthy_context, with_server

USABLE = Answer(__version__, chip="Apple M3 Ultra")


def examined(context: DoctorContext) -> list[Finding]:
    """Run the check with a usable machine `studio` and with others that are off."""

    def examine(hosts: Sequence[str], _: Settings, model: ModelFolder) -> list[HostReport]:
        return [
            HostReport(host, USABLE, model=model.name)
            if host == "studio"
            else HostReport(host, None, f"{host} is not reached.", f"ssh {host} true")
            for host in hosts
        ]

    return list(check(context, examine))


def test_nothing_is_found_where_the_model_runs_here(tmp_path: Path) -> None:
    assert examined(healthy_context(tmp_path)) == []
    assert examined(healthy_context(tmp_path, hosts="localhost")) == []


def test_each_machine_is_found_with_its_fix(tmp_path: Path) -> None:
    context = healthy_context(tmp_path, hosts="localhost,studio,mini", replicas=True)
    assert examined(context) == [
        ok("machines", f"studio: pensieve {__version__}, Apple M3 Ultra, phi-3-mini is there"),
        red("machines", "mini is not reached.", "ssh mini true"),
    ]


def test_hosts_of_a_running_server_precede_the_settings(tmp_path: Path) -> None:
    context = with_server(healthy_context(tmp_path, hosts="mini"), 7777, Health("ready"))
    assert context.record
    record = replace(context.record, flags={"hosts": "studio"})
    (finding,) = examined(replace(context, record=record))
    assert finding.text.startswith("studio: ")


def test_missing_ssh_is_a_finding(tmp_path: Path) -> None:
    def examine(*_: object) -> list[HostReport]:
        raise ProgramMissingError("my-ssh does not start: No such file or directory.")

    (finding,) = check(healthy_context(tmp_path, hosts="studio"), examine)
    assert (finding.level, finding.topic) == ("red", "machines")
